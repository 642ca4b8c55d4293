package plan

import (
	"testing"

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
