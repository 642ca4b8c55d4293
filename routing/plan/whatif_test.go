package plan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ententehq/entente/trust/standing"
)

func TestScenario(t *testing.T) {
	given := func() []Endpoint {
		list := make([]Endpoint, 6)
		for i := range list {
			list[i] = Endpoint{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 443),
				ID: spiffeid.RequireFromString(
					"spiffe://eu.example.org/shop",
				), Weight: 1, Health: Healthy, Trust: standing.Fresh,
			}
		}
		for i, place := range []string{"eu/a", "eu/a", "eu/a", "eu/b", "us/a", "us/c"} {
			list[i].Locality = locality(place)
		}
		return list
	}
	for suppose, want := range map[string]string{
		"":          "h h h h h h",
		"eu=down":   "u u u u h h",
		"eu/a=down": "u u u h h h",
		"a=down":    "u u u h u h",
		"eu=34%":    "u u h u h h",
		"eu=100%":   "u u u u h h",
		"eu=down " + given()[1].Address.String() + "=degraded":      "u d u u h h",
		given()[5].Address.String() + "=draining":                   "h h h h h d",
		"domain:eu.example.org=expired":                             "- - - - - -",
		"domain:eu.example.org=expired domain:eu.example.org=fresh": "h h h h h h",
		"asia=down": "h h h h h h without asia=down",
	} {
		t.Run(suppose, func(t *testing.T) {
			scenario, err := ParseScenario(strings.Fields(suppose))
			require.NoError(t, err)
			before := given()
			list, unmatched := scenario.Apply(before)
			require.Equal(t, given(), before, "the given endpoints were changed")
			var got []string
			for _, e := range list {
				word := e.Health.String()[:1]
				if !e.Trust.Verifiable() {
					word = "-"
				}
				got = append(got, word)
			}
			for _, u := range unmatched {
				got = append(got, "without "+u.String())
			}
			require.Equal(t, want, strings.Join(got, " "))
		})
	}
}

func TestInvalidAssumptions(t *testing.T) {
	for text, want := range map[string]string{
		"":                            `write PLACE=down, PLACE=40%, domain:NAME=expired or IP:PORT=unhealthy`,
		"eu":                          `write PLACE=down`,
		"eu=up":                       `a place can be down, or 1% to 100% of it`,
		"eu=0%":                       `1% to 100%`,
		"eu=101%":                     `1% to 100%`,
		"eu=+5%":                      `1% to 100%`,
		"eu//a=down":                  `the zone is empty`,
		"domain:=expired":             `names no trust domain`,
		"domain:spiffe://us=expired":  `names no trust domain`,
		"domain:us.example.org=down":  `fresh, stale, expired or suspended`,
		"10.0.0.1:80=down":            `healthy, degraded, unhealthy or draining`,
		"shop.example.org:80=healthy": `shop.example.org`,
	} {
		_, err := parseAssumption(text)
		require.ErrorContains(t, err, want, text)
	}
	_, err := ParseScenario(make([]string, maxAssumptions+1))
	require.EqualError(t, err, "not an assumption: there are 65; 64 are allowed")
}

// TestDistributeLoadLaws: percentages add up in every scenario, and no load goes to regions without endpoints that can
// be authenticated.
func TestDistributeLoadLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, given := drawPolicy(t), drawEndpoints(t)
		texts := rapid.SliceOfN(rapid.SampledFrom([]string{
			"a=down",
			"b=30%",
			"a/b=70%",
			"domain:eu.example.org=expired",
			"domain:us.example.org=stale",
		}), 0, 4).
			Draw(t, "suppose")
		scenario, err := ParseScenario(texts)
		require.NoError(t, err)
		imagined, _ := scenario.Apply(given)
		carried := p.DistributeLoad(imagined)
		trusted := make(map[string]bool)
		for _, e := range imagined {
			trusted[e.Locality.Region] = trusted[e.Locality.Region] || e.Trust.Verifiable()
		}
		sum := carried.Unserved
		for region, percent := range carried.Regions {
			sum += percent
			require.True(t, percent == 0 || trusted[region], "load for %s, where nobody can be authenticated", region)
		}
		if len(given) == 0 {
			require.Zero(t, sum)
		} else {
			require.EqualValues(t, 100, sum)
		}
	})
}

// TestDistributeLoadCountsOffered: endpoints that every plan excludes are not available, whatever their health.
func TestDistributeLoadCountsOffered(t *testing.T) {
	list := endpoints(
		t,
		"10.0.0.1 eu/a healthy",
		"10.0.0.2 eu/a unhealthy",
		"10.0.0.3 us/a healthy",
		"10.0.0.4 us/a healthy",
		"10.0.0.5 us/a healthy stale",
		"10.0.0.4 us/b degraded",
	)
	list[2].Expired = true
	for mode, want := range map[StaleMode]uint32{StaleDemote: 2, StaleDrop: 1} {
		carried := policy(t, Settings{Stale: mode}).DistributeLoad(list)
		require.Equal(t, map[string]uint32{"eu": 1, "us": want}, carried.Available, mode)
	}
}

// TestDistributeLoadCountsCallersOnce: an instance that is registered twice, because its lease is new, does not count
// as more callers.
func TestDistributeLoadCountsCallersOnce(t *testing.T) {
	list := endpoints(t, "10.0.0.1 eu/a healthy", "10.0.0.1 eu/a healthy", "10.0.0.2 us/a healthy")
	list[1].Outranked = true
	require.Equal(t, map[string]uint32{"eu": 50, "us": 50}, DefaultPolicy().DistributeLoad(list).Regions)
}
