package port_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var words = raftstore.NewTable[*wrapperspb.StringValue]("test_words")

// put writes a word. Like [member.write] it goes through elections.
func (m *member) put(key, text string) {
	m.t.Helper()
	m.eventually("wrote", func() error {
		_, err := m.store.Update(m.t.Context(), func(tx *raftstore.Tx) error {
			return words.Put(tx, key, wrapperspb.String(text))
		})
		return err
	})
}

// corrupted changes a bit in the memory of a member, and writes until the members have compared their states after
// that. It returns why the member has stopped.
func (m *member) corrupted(others ...*member) error {
	m.t.Helper()
	raftstoretest.Corrupt(m.t, m.store, words.Name(), "k")
	var fatal error
	n := 0
	others[0].eventually("outvotes "+m.id, func() error {
		n++
		others[0].put("k", fmt.Sprint(n)) // the difference stays behind when the row is written again
		select {
		case fatal = <-m.fatal:
			return nil
		default:
			return errors.New("it goes on")
		}
	})
	return fatal
}

// TestOutvotedMemberStops: the state of one of three members is not that of the two others. It stops by itself, a
// leader after it has handed the lead over, does not start again with its files, and the others go on.
func TestOutvotedMemberStops(t *testing.T) {
	for _, test := range []struct {
		name  string
		leads bool
	}{{"a follower", false}, {"the leader", true}} {
		t.Run(test.name, func(t *testing.T) {
			every := func(m *member) *member {
				m.checkpoints = 16
				return m
			}
			a := every(newMember(t, "eu-1")).form()
			all := []*member{a, every(newMember(t, "eu-2")).joined(a), every(newMember(t, "eu-3")).joined(a)}
			a.eventually("all vote", func() error {
				for _, s := range a.store.Servers().List() {
					if !s.Voter {
						return fmt.Errorf("%s does not", s.MemberID)
					}
				}
				return nil
			})
			a.put("k", "value")
			for _, m := range all {
				m.eventually("has the word", m.reached(a.store.View().Revision()))
			}
			odd := -1
			a.eventually("one leads", func() error {
				for i, m := range all {
					if m.store.IsLeader() == test.leads {
						odd = i
					}
				}
				if odd < 0 {
					return errors.New("none")
				}
				return nil
			})
			outvoted := all[odd]
			others := append(append([]*member{}, all[:odd]...), all[odd+1:]...)
			err := outvoted.corrupted(others...)
			require.ErrorIs(t, err, raftstore.ErrDamaged)
			require.Regexp(t, `at entry \d+ it differs from that of `+others[0].id+", "+others[1].id+
				", a majority of the members with a vote", err.Error())
			require.False(t, outvoted.store.IsLeader())

			others[0].put("k", "after")
			for _, m := range others {
				m.eventually("has what was written after", m.reached(others[0].store.View().Revision()))
				require.Empty(t, m.fatal)
			}
			outvoted.stop()
			_, err = raftstore.Open(raftstore.Config{
				MemberID: outvoted.id, Identity: outvoted.identity.Digest, Dir: outvoted.dir + "/raft",
			})
			require.ErrorContains(t, err, "run 'entente cluster repair "+outvoted.id+"' against another member")
		})
	}
}
