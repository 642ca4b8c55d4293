package hintdiff_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/api/hintdiff"
)

// hint returns a hint of n instances in four zones, of which those in out are excluded.
func hint(n int, revision uint64, out map[int]bool) *ententev1.Hint {
	h := &ententev1.Hint{
		Service: "shop", Locality: &ententev1.Locality{Region: "eu-west-1", Zone: "a"}, Revision: revision,
		Priorities: []*ententev1.HintPriority{{Load: 100}},
	}
	for zone := range 4 {
		l := &ententev1.HintLocality{
			Locality: &ententev1.Locality{Region: "eu-west-1", Zone: fmt.Sprintf("zone-%d", zone)}, Share: 25,
		}
		for i := zone; i < n; i += 4 {
			address, id := fmt.Sprintf("10.0.%d.%d:8443", i/256, i%256), "spiffe://eu.example.org/shop"
			if out[i] {
				h.Excluded = append(h.Excluded, &ententev1.HintExclusion{
					Address: address, SpiffeId: id, Reason: "it is unhealthy", Locality: l.GetLocality(),
				})
				continue
			}
			l.Endpoints = append(l.Endpoints, &ententev1.HintEndpoint{
				Address: address, SpiffeId: id, Health: ententev1.Health_HEALTH_HEALTHY, Weight: 1,
				Freshness: ententev1.Freshness_FRESHNESS_FRESH,
			})
		}
		h.Priorities[0].Localities = append(h.Priorities[0].Localities, l)
	}
	return h
}

func received(t testing.TB, m *ententev1.Hint) *ententev1.Hint {
	t.Helper()
	raw, err := proto.Marshal(m)
	require.NoError(t, err)
	var out ententev1.Hint
	require.NoError(t, proto.Unmarshal(raw, &out))
	return &out
}

// TestDifferences: whatever one hint and the next are, the difference turns the one into the other.
func TestDifferences(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	was := &ententev1.Hint{
		Service: "shop", Locality: &ententev1.Locality{Region: "eu-west-1", Zone: "a"},
		Reason: "no instance is registered",
	}
	for step := range 300 {
		out := map[int]bool{}
		n := random.IntN(40)
		for range random.IntN(n + 1) {
			out[random.IntN(n+1)] = true
		}
		is := hint(n, uint64(step), out)
		if n == 0 {
			is.Priorities, is.Reason = nil, "no instance is registered"
		}
		for _, p := range is.GetPriorities() { // in another order
			for _, l := range p.GetLocalities() {
				random.Shuffle(len(l.GetEndpoints()), func(i, j int) {
					l.Endpoints[i], l.Endpoints[j] = l.Endpoints[j], l.Endpoints[i]
				})
			}
		}
		got, err := hintdiff.Apply(was, received(t, hintdiff.Between(was, is)))
		require.NoError(t, err)
		require.True(t, proto.Equal(is, got), "step %d: %v is not %v", step, got, is)
		was = got
	}
}

// TestFlaps counts what a watch of 4,000 instances sends in ten seconds in which ten of them a second are unhealthy for
// a moment.
func TestFlaps(t *testing.T) {
	const instances, flaps = 4000, 100
	was := hint(instances, 1, nil)
	whole, differences := 0, 0
	for flap := range flaps {
		for half, out := range []map[int]bool{{flap * 37 % instances: true}, nil} {
			is := hint(instances, uint64(2*flap+half+2), out)
			difference := hintdiff.Between(was, is)
			whole, differences = whole+proto.Size(is), differences+proto.Size(difference)
			got, err := hintdiff.Apply(was, difference)
			require.NoError(t, err)
			require.True(t, proto.Equal(is, got))
			was = is
		}
	}
	t.Logf("%d changes of %d instances: %d bytes as whole hints, %d bytes as differences: a ratio of %d", 2*flaps,
		instances, whole, differences, whole/differences)
	require.Greater(t, whole/differences, 500)
}

func TestApplyRefuses(t *testing.T) {
	was := hint(8, 1, nil)
	for name, test := range map[string]struct {
		difference *ententev1.HintDifference
		want       string
	}{
		"beyond the list": {
			&ententev1.HintDifference{Endpoints: []*ententev1.HintPart{{From: 7, Count: 2}}},
			"the difference does not fit the hint before: elements 7 to 9 of 8",
		},
		"of an empty list": {
			&ententev1.HintDifference{Excluded: []*ententev1.HintPart{{Count: 1}}},
			"the difference does not fit the hint before: elements 0 to 1 of 0",
		},
		"too few endpoints": {
			&ententev1.HintDifference{EndpointCounts: []uint32{1, 1, 1, 1}},
			"the difference does not fit the hint before: a locality has no endpoints",
		},
		"too many endpoints": {
			&ententev1.HintDifference{
				EndpointCounts: []uint32{1, 1, 1, 1}, Endpoints: []*ententev1.HintPart{{Count: 8}},
			},
			"the difference does not fit the hint before: endpoints are in no locality",
		},
	} {
		t.Run(name, func(t *testing.T) {
			difference := hintdiff.Between(was, was)
			difference.Difference = test.difference
			_, err := hintdiff.Apply(was, difference)
			require.EqualError(t, err, test.want)
		})
	}
	grows := hintdiff.Between(was, was)
	for range 1 << 18 {
		grows.Difference.Endpoints = append(grows.Difference.Endpoints, &ententev1.HintPart{Count: 8})
	}
	_, err := hintdiff.Apply(was, grows)
	require.EqualError(t, err, "the difference does not fit the hint before: more than 1048576 elements")
}
