package routing

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

func TestStrays(t *testing.T) {
	a, b := staging{set{"shop", ""}, "a"}, staging{set{"shop", "@us.example.org"}, "b"}
	type revisions = map[staging]raftstore.Revision
	var s strays
	for _, step := range []struct {
		minute int
		found  revisions
		over   []staging
	}{
		{0, revisions{a: 5}, nil},
		{9, revisions{a: 5, b: 7}, nil},
		{10, revisions{a: 5, b: 7}, []staging{a}},
		{11, revisions{b: 7}, nil},
		{18, revisions{b: 8}, nil}, // it goes on
		{27, revisions{b: 8}, nil},
		{28, revisions{b: 8}, []staging{b}},
		{29, revisions{}, nil},
		{30, revisions{b: 8}, nil}, // as good as new
		{20, revisions{b: 8}, nil}, // the clock was set back
		{30, revisions{b: 8}, []staging{b}},
	} {
		require.Equal(t, step.over, s.due(step.found, at(float64(60*step.minute))), "minute %d", step.minute)
	}
}

// TestWhatAReplacementLeavesIsCleared: rows that were staged and never switched to go, in sets of every kind; what counts stays, and so does
// a generation that has come to count when it is to be cleared.
func TestWhatAReplacementLeavesIsCleared(t *testing.T) {
	r := newRoom(t)
	_, err := r.RegisterInstance(admin(t), &ententev1.RegisterInstanceRequest{Instance: registration()})
	require.NoError(t, err)
	sets := []set{{"shop", ""}, {"cart", leaseNamed(1)}, {"shop", "@us.example.org"}}
	_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		for _, of := range sets {
			for n := range 3 {
				if err := Instances.Put(tx, of.in("dead")+fmt.Sprintf("10.0.0.%d:80", n), &statev1.Instance{Service: of.service}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	require.NoError(t, err)
	s := &sweeper{Manager: r.Manager}
	rows := func() int {
		list, err := Instances.List(r.store.View(), "")
		require.NoError(t, err)
		return len(list)
	}
	s.sweepStrays(t.Context())
	r.pass(strayAfter - time.Minute)
	s.sweepStrays(t.Context())
	require.Equal(t, 10, rows(), "they may still be added to")

	// One of them comes to count between the look and the clearing.
	_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return Sets.Put(tx, sets[1].String(), &statev1.InstanceSet{Generation: "dead"})
	})
	require.NoError(t, err)
	cleared, err := s.clearGeneration(t.Context(), staging{sets[1], "dead"})
	require.NoError(t, err)
	require.Zero(t, cleared)
	r.pass(time.Minute)
	s.sweepStrays(t.Context())
	require.Equal(t, 4, rows(), "what counts, and what came to count")
}
