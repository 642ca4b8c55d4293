package xds

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/trust/standing"
)

var (
	home = spiffeid.RequireTrustDomainFromString("eu.example.org")
	euID = spiffeid.RequireFromString("spiffe://eu.example.org/shop")
	usID = spiffeid.RequireFromString("spiffe://us.example.org/shop")
)

// readEndpoints reads lines such as "1 eu/a healthy": the last byte of the address, the locality, the health. Those of
// region us are of the other trust domain.
func readEndpoints(t testing.TB, lines ...string) []plan.Endpoint {
	t.Helper()
	var list []plan.Endpoint
	for _, line := range lines {
		fields := strings.Fields(line)
		l, err := plan.ParseLocality(fields[1])
		require.NoError(t, err)
		e := plan.Endpoint{
			Address: netip.MustParseAddrPort(
				"10.0.0." + fields[0] + ":80",
			), Locality: l, ID: euID, Weight: 1, Trust: standing.Fresh,
		}
		if l.Region == "us" {
			e.ID = usID
		}
		for _, h := range []plan.Health{plan.Healthy, plan.Degraded, plan.Unhealthy, plan.Draining} {
			if h.String() == fields[2] {
				e.Health = h
			}
		}
		require.NotZero(t, e.Health, line)
		list = append(list, e)
	}
	return list
}

func planFor(t testing.TB, caller string, lines ...string) plan.Plan {
	t.Helper()
	at, err := plan.ParseLocality(caller)
	require.NoError(t, err)
	return plan.DefaultPolicy().Plan(at, readEndpoints(t, lines...))
}

// transcript writes levels as text: a line a level, each locality with its percentage and the last bytes of its
// addresses.
func transcript(levels []level) string {
	var lines []string
	for _, l := range levels {
		sum := uint64(0)
		for _, p := range l {
			sum += p.weight
		}
		var parts []string
		for _, p := range l {
			var addresses []string
			for _, e := range p.endpoints {
				addresses = append(addresses, strings.TrimPrefix(e.Address.Addr().String(), "10.0.0."))
			}
			parts = append(
				parts,
				fmt.Sprintf(
					"%s %.0f%% [%s]",
					p.locality, float64(100*p.weight)/float64(sum), strings.Join(addresses, " "),
				),
			)
		}
		lines = append(lines, strings.Join(parts, ", "))
	}
	return strings.Join(lines, " | ")
}

func TestSpill(t *testing.T) {
	for name, c := range map[string]struct {
		endpoints []string
		want      string
	}{
		"all is well": {[]string{
			"1 eu/a healthy",
			"2 eu/b healthy",
			"3 us/a healthy",
		}, "eu/a 100% [1] | eu/b 100% [2] | us/a 100% [3]"},
		"half of the zone is gone": {
			[]string{"1 eu/a healthy", "2 eu/a unhealthy", "3 eu/b healthy", "4 us/a healthy"},
			"eu/a 70% [1], eu/b 30% [3] | us/a 100% [4]",
		},
		"draining is as gone": {[]string{
			"1 eu/a healthy",
			"2 eu/a draining",
			"3 eu/b healthy",
		}, "eu/a 70% [1], eu/b 30% [3]"},
		"the zone is gone": {[]string{
			"1 eu/a unhealthy",
			"2 eu/b healthy",
			"3 us/a healthy",
		}, "eu/b 100% [2] | us/a 100% [3]"},
		"the region is gone": {[]string{
			"1 eu/a unhealthy",
			"2 eu/b unhealthy",
			"3 us/a healthy",
		}, "us/a 100% [3]"},
		"degraded gets the rest": {[]string{
			"1 eu/a healthy",
			"2 eu/a degraded",
			"3 eu/a unhealthy",
		}, "eu/a 100% [1 2]"},
		"panic goes to all": {[]string{
			"1 eu/a unhealthy",
			"2 eu/a unhealthy",
			"3 eu/a unhealthy",
		}, "eu/a 100% [1 2 3]"},
		"degraded ones wait": {
			[]string{
				"1 eu/a healthy",
				"2 eu/a healthy",
				"3 eu/a healthy",
				"4 eu/a degraded",
				"5 eu/b healthy",
				"6 us/a healthy",
				"7 us/a degraded",
			},
			"eu/a 100% [1 2 3] | eu/b 100% [5] | us/a 100% [6] | eu/a 100% [4] | us/a 100% [7]",
		},
		"a zone of two localities": {
			[]string{"1 eu/a healthy", "2 eu/b healthy", "3 eu/c healthy"},
			"eu/a 100% [1] | eu/b 50% [2], eu/c 50% [3]",
		},
		"nothing": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, transcript(spill(planFor(t, "eu/a", c.endpoints...), nil)))
		})
	}
}

// TestSpillIsAsFineAsTheWeights: localities that weigh the same get the same, and none nothing, however many there are.
func TestSpillIsAsFineAsTheWeights(t *testing.T) {
	var lines []string
	for n := range 150 {
		lines = append(lines, fmt.Sprintf("%d eu/z%d healthy", n+1, n))
	}
	levels := spill(planFor(t, "us/a", lines...), nil)
	require.Len(t, levels, 1)
	require.Len(t, levels[0], 150)
	for _, p := range levels[0] {
		require.Equal(t, levels[0][0].weight, p.weight, p.locality)
	}
}

func TestSpillOfOneDomain(t *testing.T) {
	planned := planFor(t, "eu/a", "1 eu/a healthy", "2 eu/a unhealthy", "3 us/a healthy", "4 us/b unhealthy")
	require.Equal(t, "eu/a 70% [1], us/a 30% [3]", transcript(spill(planned, nil)))
	require.Equal(t, "eu/a 100% [1]", transcript(spill(planned, inTrustDomain("eu.example.org"))))
	require.Equal(t, "us/a 100% [3]", transcript(spill(planned, inTrustDomain("us.example.org"))))
	parts := domains(planned)
	require.Len(t, parts, 2)
	require.Equal(t, home, parts[0].domain)
	require.InDelta(t, 70.0/30, float64(parts[0].load)/float64(parts[1].load), 0.01)
}

// TestSpillObeysTheStrictestClient draws plans and holds what goes out against what clients insist on, and against the
// plan.
func TestSpillObeysTheStrictestClient(t *testing.T) {
	healths := []plan.Health{plan.Healthy, plan.Degraded, plan.Unhealthy, plan.Draining}
	places := []plan.Locality{
		{Region: "eu", Zone: "a"},
		{Region: "eu", Zone: "a", SubZone: "1"},
		{Region: "eu", Zone: "b"},
		{Region: "us", Zone: "a"},
		{Region: "us", Zone: "b"},
	}
	rapid.Check(t, func(t *rapid.T) {
		var endpoints []plan.Endpoint
		for i := range rapid.IntRange(0, 40).Draw(t, "endpoints") {
			e := plan.Endpoint{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80), ID: euID,
				Locality: rapid.SampledFrom(places).
					Draw(t, "locality"),
				Health: rapid.SampledFrom(healths).Draw(t, "health"),
				Weight: rapid.Uint32Range(1, plan.MaxWeight).Draw(t, "weight"),
				Trust: rapid.SampledFrom([]standing.State{
					standing.Fresh, standing.Stale, standing.Expired,
				}).Draw(t, "trust"),
			}
			endpoints = append(endpoints, e)
		}
		planned := plan.DefaultPolicy().Plan(rapid.SampledFrom(places).Draw(t, "caller"), endpoints)
		levels := spill(planned, nil)
		a := assignment("shop", levels, servicePlan{}.announced(forGRPC))
		if err := checkAssignment(a); err != nil {
			t.Fatalf("%v: %v", err, a)
		}
		forEnvoy := servicePlan{}.announced(forEnvoy)
		if err := checkAssignment(assignment("shop", unspilled(planned), forEnvoy)); err != nil {
			t.Fatalf("for Envoy: %v", err)
		}
		if (planned.Reason == "") != (len(levels) > 0) {
			t.Fatalf("the plan says %q, and %d levels go out", planned.Reason, len(levels))
		}
		panics := false
		for _, p := range planned.Priorities {
			panics = panics || p.Panic
		}
		sum := uint64(0)
		for i, l := range levels {
			for _, p := range l {
				for _, e := range p.endpoints {
					if !panics && !e.Health.Available() {
						t.Fatalf("%s goes out, and is %s", e.Address, e.Health)
					}
					if e.Trust == standing.Expired {
						t.Fatalf("%s goes out, and cannot be verified", e.Address)
					}
				}
				if i == 0 {
					sum += p.weight
				}
			}
		}
		if len(levels) > 0 {
			require.InDelta(
				t,
				wholeLoad*fine,
				sum,
				wholeLoad*fine/100+40,
			) // all load is there, but for what rounds down
		}
	})
}
