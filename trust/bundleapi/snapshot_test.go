package bundleapi

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/trust"
)

func newState(t require.TestingT, revision uint64, sequences map[string]uint64) State {
	state := State{Revision: revision}
	for name, n := range sequences {
		b, err := bundle.New(spiffeid.RequireTrustDomainFromString(name), bundle.Content{Sequence: &n})
		require.NoError(t, err)
		state.Bundles = append(state.Bundles, trust.Entry{Bundle: b, Revision: n}.Message())
	}
	return state
}

// TestWatchConvergesToNewestState: whichever snapshots a watcher sees, the sum of its messages is the newest state, and
// only bundles that it has are deleted.
func TestWatchConvergesToNewestState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := rapid.SliceOfN(rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "d"}), rapid.Uint64Range(1, 3)),
			1, 8).
			Draw(t, "history")
		most := rapid.IntRange(1, 400).Draw(t, "most")
		var current, sent *snapshot
		has := make(map[string]uint64)
		for i, sequences := range history {
			current = current.next(newState(t, uint64(i+1), sequences))
			if !rapid.Bool().Draw(t, "looks") {
				continue
			}
			messages := responses(current.revision, since(sent, current), most)
			for j, r := range messages {
				require.Equal(t, j < len(messages)-1, r.GetMore())
				require.Equal(t, current.revision, r.GetRevision())
				for _, name := range r.GetDeleted() {
					require.Contains(t, has, name)
					delete(has, name)
				}
				for _, b := range r.GetChanged() {
					has[b.GetTrustDomain()] = b.GetSequence()
				}
			}
			require.True(t, maps.Equal(sequences, has), "%v is not %v", has, sequences)
			sent = current
		}
	})
}

func TestResponsesAreBounded(t *testing.T) {
	var s step
	for i := range 50 {
		s.changed = append(s.changed, &ententev1.Bundle{TrustDomain: fmt.Sprint(i), Document: make([]byte, 900)})
	}
	s.deleted = []string{"x", "y"}
	messages := responses(7, s, 4000)
	require.Equal(t, []string{"x", "y"}, messages[0].GetDeleted())
	total := 0
	for _, r := range messages {
		require.LessOrEqual(t, proto.Size(r), 4100)
		total += len(r.GetChanged())
	}
	require.Equal(t, 50, total)
	require.Len(t, responses(7, step{}, 4000), 1, "an empty state is a message too")
	one := step{changed: slices.Clone(s.changed[:1])}
	require.Len(t, responses(7, one, 10), 1, "a bundle above the bound goes alone")
}

func TestFeedIsSilentWhenNothingChanged(t *testing.T) {
	f := newBroadcast()
	f.publish(newState(t, 1, map[string]uint64{"a": 1}))
	first, changed, _ := f.newest()
	f.publish(newState(t, 2, map[string]uint64{"a": 1}))
	second, _, _ := f.newest()
	require.Same(t, first, second)
	select {
	case <-changed:
		t.Fatal("the watchers were woken for nothing")
	default:
	}
}

// BenchmarkPublish measures a change of one among 10,000 bundles, as every member does it once a change.
func BenchmarkPublish(b *testing.B) {
	sequences := make(map[string]uint64)
	for i := range 10_000 {
		sequences[fmt.Sprintf("d%d.test", i)] = 1
	}
	one := newState(b, 1, sequences)
	two := State{Revision: 2, Bundles: slices.Clone(one.Bundles)}
	two.Bundles[17] = newState(b, 2, map[string]uint64{one.Bundles[17].GetTrustDomain(): 9}).Bundles[0]
	f := newBroadcast()
	for i := 0; b.Loop(); i++ {
		f.publish([]State{one, two}[i%2])
	}
}
