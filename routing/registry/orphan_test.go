package registry

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/routingtest"
)

func TestOrphansDue(t *testing.T) {
	a, b := generation{set{"shop", ""}, "a"}, generation{set{"shop", "@us.example.org"}, "b"}
	type revisions = map[generation]raftstore.Revision
	var o orphans
	for _, step := range []struct {
		minute   int
		found    revisions
		orphaned []generation
	}{
		{0, revisions{a: 5}, nil},
		{9, revisions{a: 5, b: 7}, nil},
		{10, revisions{a: 5, b: 7}, []generation{a}},
		{11, revisions{b: 7}, nil},
		{18, revisions{b: 8}, nil}, // rows are still added
		{27, revisions{b: 8}, nil},
		{28, revisions{b: 8}, []generation{b}},
		{29, revisions{}, nil},
		{30, revisions{b: 8}, nil}, // it counts as new
		{20, revisions{b: 8}, nil}, // the clock was set back
		{30, revisions{b: 8}, []generation{b}},
	} {
		require.Equal(
			t,
			step.orphaned,
			o.due(step.found, routingtest.Epoch.Add(time.Duration(step.minute)*time.Minute)),
			"minute %d",
			step.minute,
		)
	}
}

// TestOrphanedGenerationsAreDeleted: rows that were staged and never switched to are deleted, in sets of every kind.
// Rows that count stay, and so do those of a generation that comes to count before it is deleted.
func TestOrphanedGenerationsAreDeleted(t *testing.T) {
	m := newMember(t)
	_, err := m.RegisterInstance(
		routingtest.Admin(t),
		&ententev1.RegisterInstanceRequest{Instance: routingtest.Registration()},
	)
	require.NoError(t, err)
	sets := []set{{"shop", ""}, {"cart", leaseNamed(1)}, {"shop", "@us.example.org"}}
	_, err = m.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		for _, of := range sets {
			for n := range 3 {
				if err := Instances.Put(
					tx,
					of.in("dead")+fmt.Sprintf("10.0.0.%d:80", n),
					&statev1.Instance{Service: of.service},
				); err != nil {
					return err
				}
			}
		}
		return nil
	})
	require.NoError(t, err)
	c := m.Collector
	rows := func() int {
		list, err := Instances.List(m.store.View(), "")
		require.NoError(t, err)
		return len(list)
	}
	c.sweepOrphans(t.Context())
	m.clock.Pass(orphanAfter - time.Minute)
	c.sweepOrphans(t.Context())
	require.Equal(t, 10, rows(), "rows may still be added to them")

	// One of them comes to count between the search and the deletion.
	_, err = m.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return Sets.Put(tx, sets[1].String(), &statev1.InstanceSet{Generation: "dead"})
	})
	require.NoError(t, err)
	deleted, err := c.deleteGeneration(t.Context(), generation{sets[1], "dead"})
	require.NoError(t, err)
	require.Zero(t, deleted)
	m.clock.Pass(time.Minute)
	c.sweepOrphans(t.Context())
	require.Equal(t, 4, rows(), "the rows that count")
}
