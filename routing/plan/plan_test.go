package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ententehq/entente/trust/standing"
)

var (
	caller = Locality{"eu", "a", "1"}
	euID   = spiffeid.RequireFromString("spiffe://eu.example.org/shop")
	usID   = spiffeid.RequireFromString("spiffe://us.example.org/shop")
)

func locality(text string) Locality {
	l, err := ParseLocality(text)
	if err != nil {
		panic(err)
	}
	return l
}

// endpoints parses lines such as "10.0.0.1 eu/a/1 healthy fresh 5". The last two fields are optional.
func endpoints(t testing.TB, lines ...string) []Endpoint {
	t.Helper()
	var list []Endpoint
	for _, line := range lines {
		fields := strings.Fields(line)
		e := Endpoint{
			Address: netip.AddrPortFrom(netip.MustParseAddr(fields[0]), 8443), Locality: locality(fields[1]),
			ID: euID, Weight: 1, Trust: standing.Fresh,
		}
		for _, h := range []Health{Healthy, Degraded, Unhealthy, Draining} {
			if h.String() == fields[2] {
				e.Health = h
			}
		}
		require.NotZero(t, e.Health, line)
		if len(fields) > 3 {
			states := map[string]standing.State{
				"fresh":     standing.Fresh,
				"stale":     standing.Stale,
				"expired":   standing.Expired,
				"suspended": standing.Suspended,
				"pending":   standing.Pending,
				"unknown":   standing.Unknown,
			}
			state, ok := states[fields[3]]
			require.True(t, ok, line)
			e.Trust = state
			if state != standing.Fresh {
				e.ID = usID
			}
		}
		if len(fields) > 4 {
			_, err := fmt.Sscan(fields[4], &e.Weight)
			require.NoError(t, err)
		}
		list = append(list, e)
	}
	return list
}

// transcript returns a plan as text: one line for each priority with its localities and their shares, and the
// exclusions.
func transcript(p Plan) string {
	var b strings.Builder
	for i, priority := range p.Priorities {
		fmt.Fprintf(&b, "P%d %d", i, priority.Load)
		if priority.DegradedLoad > 0 {
			fmt.Fprintf(&b, "+%d", priority.DegradedLoad)
		}
		if priority.Panic {
			b.WriteString(" panic")
		}
		b.WriteString(":")
		for _, l := range priority.Localities {
			fmt.Fprintf(&b, " %s", l.Locality)
			if len(priority.Localities) > 1 {
				fmt.Fprintf(&b, "=%d", l.Share)
			}
			b.WriteString(" [")
			for j, e := range l.Endpoints {
				if j > 0 {
					b.WriteString(" ")
				}
				b.WriteString(e.Address.Addr().String())
			}
			b.WriteString("]")
		}
		b.WriteString("\n")
	}
	for _, x := range p.Excluded {
		fmt.Fprintf(&b, "not %s: %s\n", x.Endpoint.Address.Addr(), x.Reason)
	}
	if p.Reason != "" {
		fmt.Fprintf(&b, "none: %s\n", p.Reason)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestPlan(t *testing.T) {
	everywhere := []string{
		"10.0.0.1 us/a healthy",
		"10.0.0.2 eu/b healthy",
		"10.0.0.3 eu/a/2 healthy",
		"10.0.0.4 eu/a/1 healthy",
		"10.0.0.5 ap/a healthy",
	}
	for _, test := range []struct {
		name     string
		settings Settings
		from     string
		given    []string
		want     []string
	}{
		{"level by level", Settings{}, "eu/a/1", everywhere, []string{
			"P0 100: eu/a/1 [10.0.0.4]", "P1 0: eu/a/2 [10.0.0.3]", "P2 0: eu/b [10.0.0.2]",
			"P3 0: ap/a=50 [10.0.0.5] us/a=50 [10.0.0.1]",
		}},
		{"a caller that names no sub-zone", Settings{}, "eu/a", everywhere, []string{
			"P0 100: eu/a/1=50 [10.0.0.4] eu/a/2=50 [10.0.0.3]", "P1 0: eu/b [10.0.0.2]",
			"P2 0: ap/a=50 [10.0.0.5] us/a=50 [10.0.0.1]",
		}},
		{"a zone of the same name elsewhere is foreign", Settings{}, "us/a", everywhere[2:], []string{
			"P0 100: ap/a=34 [10.0.0.5] eu/a/1=33 [10.0.0.4] eu/a/2=33 [10.0.0.3]",
		}},
		{"failover to one region", Settings{
			Failover: []FailoverSetting{{"eu", []string{"us"}}},
		}, "eu/a/1", everywhere, []string{
			"P0 100: eu/a/1 [10.0.0.4]", "P1 0: eu/a/2 [10.0.0.3]", "P2 0: eu/b [10.0.0.2]",
			"P3 0: us/a [10.0.0.1]", "P4 0: ap/a [10.0.0.5]",
		}},
		{"failover to a list, from here only", Settings{
			Failover: []FailoverSetting{{"eu", []string{"ap", "us"}}, {"us", []string{"eu"}}},
		}, "eu/a/1",
			append([]string{"10.0.0.9 sa/a healthy"}, everywhere...), []string{
				"P0 100: eu/a/1 [10.0.0.4]", "P1 0: eu/a/2 [10.0.0.3]", "P2 0: eu/b [10.0.0.2]",
				"P3 0: ap/a [10.0.0.5]", "P4 0: us/a [10.0.0.1]", "P5 0: sa/a [10.0.0.9]",
			}},
		{
			"gaps are closed",
			Settings{},
			"eu/a/1",
			everywhere[:2],
			[]string{"P0 100: eu/b [10.0.0.2]", "P1 0: us/a [10.0.0.1]"},
		},

		{"stale trust moves behind all that is fresh", Settings{}, "eu/a/1", []string{
			"10.0.0.1 eu/a/1 healthy stale",
			"10.0.0.2 eu/b healthy stale",
			"10.0.0.3 us/a healthy",
		}, []string{
			"P0 100: us/a [10.0.0.3]", "P1 0: eu/a/1 [10.0.0.1]", "P2 0: eu/b [10.0.0.2]",
		}},
		{
			"one locality, fresh and stale",
			Settings{},
			"eu/a/1",
			[]string{"10.0.0.1 us/a healthy stale", "10.0.0.2 us/a healthy"},
			[]string{"P0 100: us/a [10.0.0.2]", "P1 0: us/a [10.0.0.1]"},
		},
		{"stale trust is kept", Settings{Stale: StaleKeep}, "eu/a/1", []string{
			"10.0.0.1 eu/a/1 healthy stale",
			"10.0.0.3 us/a healthy",
		}, []string{
			"P0 100: eu/a/1 [10.0.0.1]", "P1 0: us/a [10.0.0.3]",
		}},
		{"stale trust is dropped", Settings{Stale: StaleDrop}, "eu/a/1", []string{
			"10.0.0.1 eu/a/1 healthy stale",
			"10.0.0.3 us/a healthy",
		}, []string{
			"P0 100: us/a [10.0.0.3]",
			"not 10.0.0.1: the bundle of us.example.org is stale, and this cluster drops stale trust",
		}},
		{"what cannot be verified is left out", Settings{}, "eu/a/1", []string{
			"10.0.0.1 eu/a/1 healthy expired", "10.0.0.2 eu/a/1 healthy suspended",
			"10.0.0.3 eu/a/1 healthy pending", "10.0.0.4 eu/a/1 healthy unknown", "10.0.0.5 us/a healthy",
		}, []string{
			"P0 100: us/a [10.0.0.5]",
			"not 10.0.0.1: the bundle of us.example.org has expired; see 'entente federation show us.example.org'",
			"not 10.0.0.2: the relationship with us.example.org is suspended; resume it with 'entente " +
				"federation resume us.example.org'",
			"not 10.0.0.3: no bundle of us.example.org has been received yet; see 'entente federation " +
				"show us.example.org'",
			"not 10.0.0.4: us.example.org is neither hosted here nor federated with; 'entente " +
				"federation create us.example.org' creates a relationship",
		}},
		{"nothing can be verified", Settings{}, "eu/a/1", []string{"10.0.0.1 us/a healthy unknown"}, []string{
			"not 10.0.0.1: us.example.org is neither hosted here nor federated with; 'entente " +
				"federation create us.example.org' creates a relationship",
			"none: none of 1 instances can be authenticated from here; see the excluded instances for the reasons",
		}},
		{"nothing is registered", Settings{}, "eu/a/1", nil, []string{"none: no instance is registered"}},
		{"an address twice", Settings{}, "eu/a/1", []string{
			"10.0.0.1 eu/a/1 healthy",
			"10.0.0.1 us/a healthy stale",
		}, []string{
			"P0 100: eu/a/1 [10.0.0.1]", "not 10.0.0.1: its address is offered already",
		}},

		{
			"the near one is unhealthy",
			Settings{},
			"eu/a/1",
			[]string{"10.0.0.1 eu/a/1 unhealthy", "10.0.0.2 us/a healthy"},
			[]string{"P0 0: eu/a/1 [10.0.0.1]", "P1 100: us/a [10.0.0.2]"},
		},
		{"draining counts as unavailable", Settings{}, "eu/a/1", []string{
			"10.0.0.1 eu/a/1 draining",
			"10.0.0.2 eu/a/1 healthy",
			"10.0.0.3 us/a healthy",
		}, []string{
			"P0 70: eu/a/1 [10.0.0.1 10.0.0.2]", "P1 30: us/a [10.0.0.3]",
		}},
		{"a degraded one is used after all healthy ones", Settings{}, "eu/a/1", []string{
			"10.0.0.1 eu/a/1 degraded",
			"10.0.0.2 us/a healthy",
		}, []string{
			"P0 0: eu/a/1 [10.0.0.1]", "P1 100: us/a [10.0.0.2]",
		}},
		{"everything is unhealthy: panic", Settings{}, "eu/a/1", []string{
			"10.0.0.1 eu/a/1 unhealthy",
			"10.0.0.2 us/a draining",
			"10.0.0.3 us/b unhealthy",
			"10.0.0.4 us/b unhealthy",
		}, []string{
			"P0 25 panic: eu/a/1 [10.0.0.1]", "P1 75 panic: us/a=33 [10.0.0.2] us/b=67 [10.0.0.3 10.0.0.4]",
		}},
		{"everything is unhealthy, panic off", Settings{PanicThreshold: percent(0)}, "eu/a/1", []string{
			"10.0.0.1 eu/a/1 unhealthy",
		}, []string{
			"P0 0: eu/a/1 [10.0.0.1]", "none: none of 1 instances is available, and panic is turned off",
		}},

		{"localities share by weight and health", Settings{}, "ap/a", []string{
			"10.0.0.1 eu/a healthy fresh 10",
			"10.0.0.2 eu/b healthy fresh 15",
			"10.0.0.3 eu/b unhealthy fresh 15",
		}, []string{
			"P0 100: eu/a=32 [10.0.0.1] eu/b=68 [10.0.0.2 10.0.0.3]",
		}},
		{"distribution replaces the order", Settings{
			Distribution: []DistributionSetting{{"eu/a", map[string]int{"eu/a": 80, "us": 20}}},
		}, "eu/a/1", everywhere, []string{
			"P0 100: eu/a/1=40 [10.0.0.4] eu/a/2=40 [10.0.0.3] us/a=20 [10.0.0.1]",
			"not 10.0.0.2: the distribution rule for callers in eu/a/1 gives nothing to eu/b",
			"not 10.0.0.5: the distribution rule for callers in eu/a/1 gives nothing to ap/a",
		}},
		{"distribution ignores demotion, not trust", Settings{
			Distribution: []DistributionSetting{{"*", map[string]int{"eu": 50, "us/*": 50}}},
		}, "eu/a/1",
			[]string{"10.0.0.1 eu/a healthy", "10.0.0.2 us/a healthy stale", "10.0.0.3 us/a healthy expired"}, []string{
				"P0 100: eu/a=50 [10.0.0.1] us/a=50 [10.0.0.2]",
				"not 10.0.0.3: the bundle of us.example.org has expired; see 'entente federation show us.example.org'",
			}},
		{"a target that is gone leaves its share to the rest, in proportion",
			Settings{
				Distribution: []DistributionSetting{{"eu", map[string]int{"eu": 50, "us": 30, "ap": 20}}},
			}, "eu/a/1",
			[]string{"10.0.0.1 eu/a unhealthy", "10.0.0.2 us/a healthy", "10.0.0.3 ap/a healthy"}, []string{
				"P0 100: ap/a=40 [10.0.0.3] eu/a=0 [10.0.0.1] us/a=60 [10.0.0.2]",
			}},
		{"the first rule counts", Settings{
			Distribution: []DistributionSetting{{"eu/a", map[string]int{"us": 100}}, {"eu", map[string]int{"ap": 100}}},
		}, "eu/a/1", everywhere[3:], []string{
			"not 10.0.0.4: the distribution rule for callers in eu/a/1 gives nothing to eu/a/1",
			"not 10.0.0.5: the distribution rule for callers in eu/a/1 gives nothing to ap/a",
			"none: all 2 instances are excluded; each has its reason",
		}},
		{"other callers are not named", Settings{
			Distribution: []DistributionSetting{{"us", map[string]int{"us": 100}}},
		}, "eu/a/1", everywhere[3:], []string{
			"P0 100: eu/a/1 [10.0.0.4]", "P1 0: ap/a [10.0.0.5]",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := policy(t, test.settings).Plan(locality(test.from), endpoints(t, test.given...))
			require.Equal(t, strings.Join(test.want, "\n"), transcript(plan))
		})
	}
}

func drawEndpoints(t *rapid.T) []Endpoint {
	part := rapid.SampledFrom([]string{"a", "b", "c"})
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Endpoint {
		l := Locality{Region: part.Draw(t, "region"), Zone: part.Draw(t, "zone")}
		if rapid.Bool().Draw(t, "has sub-zone") {
			l.SubZone = part.Draw(t, "sub-zone")
		}
		return Endpoint{
			// Few addresses, so that some come twice.
			Address:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "host")}), 443),
			ID:       rapid.SampledFrom([]spiffeid.ID{euID, usID}).Draw(t, "id"),
			Locality: l,
			Weight:   rapid.Uint32Range(1, MaxWeight).Draw(t, "weight"),
			Health:   rapid.SampledFrom([]Health{Healthy, Degraded, Unhealthy, Draining}).Draw(t, "health"),
			Trust:    standing.State(rapid.IntRange(0, int(standing.Pending)).Draw(t, "trust")),
		}
	}), 0, 40).Draw(t, "endpoints")
}

// TestPlanLaws: what holds for every plan. The strictest xDS client, gRPC, rejects an assignment that violates it.
func TestPlanLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, given := drawPolicy(t), drawEndpoints(t)
		if rapid.Bool().Draw(t, "failover") {
			p.failover = map[string][]string{"a": {"c", "b"}}
		}
		if rapid.Bool().Draw(t, "distribution") {
			p.distribution = []distribution{
				{
					from:    Locality{Region: "a"},
					targets: []target{{Locality{Region: "a", Zone: "b"}, 30}, {Locality{Region: "b"}, 70}},
				},
			}
		}
		plan := p.Plan(Locality{"a", "b", "c"}, given)
		addresses := make(map[netip.AddrPort]bool)
		var loads uint32
		listed, worstFresh, bestStale := 0, -1, len(plan.Priorities)
		for i, priority := range plan.Priorities {
			require.NotEmpty(t, priority.Localities, "a gap at priority %d", i)
			loads += priority.Load + priority.DegradedLoad
			var share, degraded uint32
			var weights uint64
			seen := make(map[Locality]bool)
			for _, l := range priority.Localities {
				require.False(t, seen[l.Locality], "%s twice in priority %d", l.Locality, i)
				seen[l.Locality] = true
				require.NotEmpty(t, l.Endpoints)
				require.NotZero(t, l.Weight)
				weights += l.Weight
				share += l.Share
				degraded += l.DegradedShare
				for _, e := range l.Endpoints {
					require.False(t, addresses[e.Address], "%s twice", e.Address)
					addresses[e.Address] = true
					require.Equal(t, l.Locality, e.Locality)
					require.Contains(t, []standing.State{standing.Fresh, standing.Bootstrap, standing.Stale}, e.Trust)
					if e.Trust != standing.Stale {
						worstFresh = max(worstFresh, i)
					} else {
						bestStale = min(bestStale, i)
					}
					listed++
				}
			}
			require.Less(t, weights, uint64(1)<<32)
			if priority.Load > 0 {
				require.EqualValues(t, 100, share, "shares of priority %d", i)
			}
			if priority.DegradedLoad > 0 {
				require.EqualValues(t, 100, degraded, "degraded shares of priority %d", i)
			}
		}
		require.Equal(t, len(given), listed+len(plan.Excluded), "an endpoint is missing")
		if plan.Reason == "" {
			require.EqualValues(t, 100, loads)
		} else {
			require.Zero(t, loads)
		}
		if p.stale == StaleDemote && p.distribution == nil {
			require.Less(t, worstFresh, bestStale, "stale trust precedes fresh trust")
		}
		shuffled := rapid.Permutation(given).Draw(t, "shuffled")
		if len(addresses) == len(given) {
			require.Equal(
				t,
				transcript(plan),
				transcript(p.Plan(Locality{"a", "b", "c"}, shuffled)),
				"the order of what is given shows",
			)
		}
	})
}
