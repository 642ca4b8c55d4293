package machine

import (
	"testing"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

func TestLookUp(t *testing.T) {
	done := Outcome{Applied: true, Revision: 7}
	sessions := map[string]*session{"m": {incarnation: 3, floor: 5, outcomes: map[uint64]Outcome{4: done, 6: done}}}
	for _, c := range []struct {
		name                 string
		member               string
		incarnation, counter uint64
		want                 Outcome
		how                  Recall
	}{
		{"an unknown member", "n", 1, 1, Outcome{}, Unknown},
		{"an earlier incarnation", "m", 2, 9, Outcome{}, Forgotten},
		{"a later incarnation", "m", 4, 1, Outcome{}, Unknown},
		{"known", "m", 3, 6, done, Recalled},
		{"known below the floor", "m", 3, 4, done, Recalled},
		{"below the floor", "m", 3, 3, Outcome{}, Forgotten},
		{"at the floor", "m", 3, 5, Outcome{}, Unknown},
		{"above what is known", "m", 3, 9, Outcome{}, Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, how := lookUp(
				sessions,
				&statev1.CommandID{Member: c.member, Incarnation: c.incarnation, Counter: c.counter},
			)
			require.Equal(t, c.want, got)
			require.Equal(t, c.how, how)
		})
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s := &session{outcomes: map[uint64]Outcome{}}
	for counter := uint64(1); counter <= 10*maxOutcomes; counter++ {
		s.remember(counter, Outcome{Revision: counter})
		require.LessOrEqual(t, len(s.outcomes), maxOutcomes)
	}
	require.Greater(t, s.floor, uint64(8*maxOutcomes))
	_, how := lookUp(map[string]*session{"m": s}, &statev1.CommandID{Member: "m", Counter: 1})
	require.Equal(t, Forgotten, how, "what was given up is never applied again")

	db, state := newState()
	for member := range maxSessions + 10 {
		b := state.build(db)
		b.entry(uint64(member+2), 1, &statev1.Entry{Commands: []*statev1.Command{{
			Id:   &statev1.CommandID{Member: string(rune('A' + member)), Incarnation: 1, Counter: 1},
			Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{}},
		}}})
		state, _ = b.publish(db)
	}
	require.Len(t, state.sessions, maxSessions)
	require.NotContains(t, state.sessions, "A", "the oldest goes first")
	require.Contains(t, state.sessions, string(rune('A'+10)))
}
