package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNothingActivatesBeforeItsTime: a certificate that begins in the future, as from an upstream whose clock is ahead,
// signs nothing before that, however urgent it is.
func TestNothingActivatesBeforeItsTime(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	begins := now.Add(10 * time.Minute)
	prepared := Authority{
		ID: "next", Member: "a", Kind: X509, State: Prepared, Number: 2,
		NotBefore: begins, NotAfter: begins.Add(24 * time.Hour), Ready: now.Add(-time.Minute), LongestSVID: time.Hour,
	}
	active := func(member string, left time.Duration) Authority {
		return Authority{
			ID: "present", Member: member, Kind: X509, State: Active, Number: 1,
			NotBefore: now.Add(-23 * time.Hour), NotAfter: now.Add(left), LongestSVID: time.Hour,
		}
	}
	for name, others := range map[string][]Authority{
		"no other authority is active":              nil,
		"another member is active":                  {active("b", 12*time.Hour)},
		"the one before it has time":                {active("a", 12*time.Hour)},
		"the one before it is past its deadline":    {active("a", 30*time.Minute)},
		"the one before it ends before this begins": {active("a", 5*time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			activates := func(at time.Time) bool {
				actions, _ := planKind(Situation{
					Now: at, Member: "a", Settings: defaults(), Grace: time.Hour,
					Authorities: append([]Authority{prepared}, others...),
					Keyless:     func(string) bool { return false },
				}, X509)
				for _, a := range actions {
					if a.Do == Activate {
						return true
					}
				}
				return false
			}
			require.False(t, activates(now))
			require.False(t, activates(begins.Add(-time.Nanosecond)))
			require.True(t, activates(begins))
		})
	}
}
