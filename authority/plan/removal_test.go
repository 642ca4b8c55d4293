package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestForRemoved: the authorities of a removed member retire, and those of a compromised one are revoked.
func TestForRemoved(t *testing.T) {
	all := []Authority{
		{ID: "prepared", Member: "eu-1", Kind: X509, State: Prepared},
		{ID: "active", Member: "eu-1", Kind: X509, State: Active},
		{ID: "retiring", Member: "eu-1", Kind: JWT, State: Retiring},
		{ID: "revoked", Member: "eu-1", Kind: JWT, State: Revoked},
		{ID: "other", Member: "eu-2", Kind: X509, State: Active},
	}
	require.Equal(t, []Action{
		{Do: End, Kind: X509, ID: "prepared", Why: "its member was removed, and it never signed"},
		{Do: Retire, Kind: X509, ID: "active", Why: "its member was removed"},
	}, ForRemoved(all, "eu-1", false))
	const why = "its member was removed as compromised"
	require.Equal(t, []Action{
		{Do: Revoke, Kind: X509, ID: "prepared", Why: why},
		{Do: Revoke, Kind: X509, ID: "active", Why: why},
		{Do: Revoke, Kind: JWT, ID: "retiring", Why: why},
	}, ForRemoved(all, "eu-1", true))
	require.Empty(t, ForRemoved(all, "eu-3", true))
}

// TestRemaining: what a retiring authority signed verifies until it has expired, and what a revoked one signed does
// not, unless its anchor stays.
func TestRemaining(t *testing.T) {
	retired := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	long, soon := retired.Add(24*time.Hour), retired.Add(time.Hour)
	const signs = "a process of the member that still runs signs with it for up to 1h0m0s after its last contact " +
		"with " +
		"the leader; `entente authority revoke a` ends it now"
	for name, c := range map[string]struct {
		authority Authority
		until     time.Time
		detail    string
	}{
		"retiring": {
			Authority{State: Retiring, NotAfter: long, LongestSVID: 2 * time.Hour}, retired.Add(3 * time.Hour), signs,
		},
		"retiring, and ends " +
			"before": {Authority{State: Retiring, NotAfter: soon, LongestSVID: 2 * time.Hour}, soon, signs},
		"revoked with its own anchor": {Authority{State: Revoked, Kind: X509, NotAfter: long}, time.Time{}, ""},
		"revoked JWT key":             {Authority{State: Revoked, Kind: JWT, NotAfter: long}, time.Time{}, ""},
		"revoked below an anchor that stays": {
			Authority{State: Revoked, Kind: X509, NotAfter: long, UpstreamAnchor: true}, long,
			"it is revoked, but its anchor stays in the bundle; `entente authority revoke --anchor` ends it now, " +
				"with a " +
				"key ID that `entente authority anchors` shows",
		},
		"revoked with the upstream's anchor": {
			Authority{State: Revoked, Kind: X509, NotAfter: long, UpstreamAnchor: true, AnchorRevoked: true},
			time.Time{}, "",
		},
	} {
		c.authority.ID, c.authority.Retired = "a", retired
		until, detail := c.authority.Remaining(time.Hour)
		require.Equal(t, c.until, until, name)
		require.Equal(t, c.detail, detail, name)
	}
}
