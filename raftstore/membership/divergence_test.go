package membership

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// digests parses words MEMBER:VERSION:INDEX:SUM.
func digests(words string) (all []*ententev1.StateDigest) {
	for _, word := range strings.Fields(words) {
		parts := strings.Split(word, ":")
		all = append(all, &ententev1.StateDigest{
			MemberId: parts[0], Version: parts[1], Index: uint64(len(parts[2])), Sum: []byte(parts[3]),
		})
	}
	return all
}

// Indexes are written as a number of i: ii is a later checkpoint than i.
func TestDivergence(t *testing.T) {
	for name, c := range map[string]struct {
		all      string
		at       string // the members whose digests are compared
		suspects string
		stops    string // the members that must stop
	}{
		"equal":                      {all: "m1:1:i:a m2:1:i:a m3:1:i:a"},
		"nothing yet":                {},
		"alone":                      {all: "m1:1:i:a"},
		"at different checkpoints":   {all: "m1:1:i:a m2:1:ii:b"},
		"one differs":                {"m1:1:i:a m2:1:i:b m3:1:i:a", "m1 m2 m3", "m2", "m2"},
		"one lags behind, and equal": {"m1:1:i:a m1:1:ii:b m2:1:ii:b m3:1:i:a", "", "", ""},
		"one lags behind, and differs": {
			"m1:1:i:a m1:1:ii:b m2:1:i:a m2:1:ii:b m3:1:i:x", "m1 m2 m3", "m3", "m3",
		},
		"the newest index counts":     {"m1:1:i:a m2:1:i:b m1:1:ii:c m2:1:ii:d m3:1:ii:c", "m1 m2 m3", "m2", "m2"},
		"two differ from each other":  {"m1:1:i:a m2:1:i:b", "m1 m2", "m1 m2", ""},
		"all differ":                  {"m1:1:i:a m2:1:i:b m3:1:i:c", "m1 m2 m3", "m1 m2 m3", ""},
		"a majority of two versions":  {"m1:1:i:a m2:2:i:a m3:1:i:b", "m1 m2 m3", "m3", ""},
		"the other one is of another": {"m1:1:i:a m2:1:i:a m3:2:i:b", "m1 m2 m3", "m3", ""},
		"a majority with a non-voter": {"m1:1:i:a n:1:i:a m3:1:i:b", "m1 m3 n", "m3", ""},
		"a non-voter differs":         {"m1:1:i:a m2:1:i:a n:1:i:b", "m1 m2 n", "n", "n"},
		"a digest sent twice":         {"m1:1:i:a m1:1:i:a m3:1:i:b", "m1 m1 m3", "m3", ""},
	} {
		t.Run(name, func(t *testing.T) {
			at := disagreement(digests(c.all))
			var compared, stops []string
			for _, d := range at {
				compared = append(compared, d.GetMemberId())
				if by, stop := outvoted(at, []string{"m1", "m2", "m3"}, d.GetMemberId()); stop {
					require.GreaterOrEqual(t, len(by), 2)
					stops = append(stops, d.GetMemberId())
				}
			}
			require.Equal(t, c.at, strings.Join(compared, " "))
			require.Equal(t, c.suspects, strings.Join(suspects(at), " "))
			require.Equal(t, c.stops, strings.Join(stops, " "))
		})
	}
	at := digests("m1:1:i:a m2:1:i:b m3:1:i:b")
	at[0].Format = 7
	require.Empty(t, disagreement(at), "digests of different formats are not compared")
	_, stop := outvoted(digests("m1:1:i:a m2:1:i:a"), []string{"m1", "m2", "m3"}, "m3")
	require.False(t, stop, "a member that reported none")
}
