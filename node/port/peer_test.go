package port_test

import (
	"context"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
)

// TestDialPeer: a member of another cluster is known by its ID and by the bundle that is stored, and by nothing else.
func TestDialPeer(t *testing.T) {
	a := newMember(t, "eu-1").form()
	home(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := a.port.DialPeer(ctx, a.address, spiffeid.RequireTrustDomainFromString("us.test"))
	require.ErrorContains(t, err, "and not as a member of us.test")

	// It answers as a member of its home domain.
	conn, err := a.port.DialPeer(ctx, a.address, spiffeid.RequireTrustDomainFromString(homeDomain))
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	// Signed by an authority that is not in the bundle, it is nobody.
	other := newAuthority(t, homeDomain, time.Now())
	forged := other.issue("spiffe://"+homeDomain+"/entente/member/eu-1", time.Now().Add(time.Hour))
	a.api.set(&forged, newAuthority(t, homeDomain, time.Now()).bundles(homeDomain).bundles)
	_, err = a.port.DialPeer(ctx, a.address, spiffeid.RequireTrustDomainFromString(homeDomain))
	require.Error(t, err)
}
