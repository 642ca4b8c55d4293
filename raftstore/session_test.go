package raftstore

import (
	"testing"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

func TestLookUp(t *testing.T) {
	done := outcome{applied: true, revision: 7}
	sessions := map[string]*session{"m": {incarnation: 3, floor: 5, outcomes: map[uint64]outcome{4: done, 6: done}}}
	for _, c := range []struct {
		name                 string
		member               string
		incarnation, counter uint64
		want                 outcome
		how                  recall
	}{
		{"a member that was never heard of", "n", 1, 1, outcome{}, unheard},
		{"an earlier incarnation", "m", 2, 9, outcome{}, forgotten},
		{"a later incarnation", "m", 4, 1, outcome{}, unheard},
		{"known", "m", 3, 6, done, recalled},
		{"known below the floor", "m", 3, 4, done, recalled},
		{"below the floor", "m", 3, 3, outcome{}, forgotten},
		{"at the floor", "m", 3, 5, outcome{}, unheard},
		{"above what is known", "m", 3, 9, outcome{}, unheard},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, how := lookUp(sessions, &statev1.CommandID{Member: c.member, Incarnation: c.incarnation, Counter: c.counter})
			require.Equal(t, c.want, got)
			require.Equal(t, c.how, how)
		})
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s := &session{outcomes: map[uint64]outcome{}}
	for counter := uint64(1); counter <= 10*maxOutcomes; counter++ {
		s.remember(counter, outcome{revision: counter})
		require.LessOrEqual(t, len(s.outcomes), maxOutcomes)
	}
	require.Greater(t, s.floor, uint64(8*maxOutcomes))
	_, how := lookUp(map[string]*session{"m": s}, &statev1.CommandID{Member: "m", Counter: 1})
	require.Equal(t, forgotten, how, "what was given up is never applied again")

	db, state := newState()
	for member := range maxSessions + 10 {
		a := state.apply(db)
		a.entry(uint64(member+2), 1, &statev1.Entry{Commands: []*statev1.Command{{
			Id:   &statev1.CommandID{Member: string(rune('A' + member)), Incarnation: 1, Counter: 1},
			Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{}},
		}}})
		state, _ = a.publish(db)
	}
	require.Len(t, state.sessions, maxSessions)
	require.NotContains(t, state.sessions, "A", "the oldest goes first")
	require.Contains(t, state.sessions, string(rune('A'+10)))
}

func TestSettledCommandsOfOneMember(t *testing.T) {
	c := newCommands("m", 1)
	first, settled := c.open()
	require.Equal(t, []uint64{1, 1}, []uint64{first.GetCounter(), settled})
	second, settled := c.open()
	require.Equal(t, []uint64{2, 1}, []uint64{second.GetCounter(), settled})
	c.settle(second.GetCounter())
	third, settled := c.open()
	require.Equal(t, []uint64{3, 1}, []uint64{third.GetCounter(), settled}, "the first is still open")
	c.settle(first.GetCounter())
	require.Equal(t, uint64(4), c.next(), "a transaction's number is none of a command")
	fourth, settled := c.open()
	require.Equal(t, []uint64{5, 3}, []uint64{fourth.GetCounter(), settled})
}
