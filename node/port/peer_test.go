package port_test

import (
	"context"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
)

// A member of another cluster is verified by its SPIFFE ID and the stored bundle.
func TestDialPeer(t *testing.T) {
	a := newMember(t, "eu-1").form()
	home(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	_, err := a.port.DialPeer(ctx, a.address, spiffeid.RequireTrustDomainFromString("us.test"))
	require.ErrorContains(t, err, "is spiffe://eu.example.org/entente/member/eu-1, and not a member of us.test")

	// It is a member of its home domain.
	conn, err := a.port.DialPeer(ctx, a.address, spiffeid.RequireTrustDomainFromString(homeDomain))
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	// An SVID that is signed by an authority outside of the bundle is refused.
	other := newAuthority(t, homeDomain, time.Now())
	forged := other.issue("spiffe://"+homeDomain+"/entente/member/eu-1", time.Now().Add(time.Hour))
	a.api.set(&forged, newAuthority(t, homeDomain, time.Now()).bundles(homeDomain).bundles)
	_, err = a.port.DialPeer(ctx, a.address, spiffeid.RequireTrustDomainFromString(homeDomain))
	require.ErrorContains(t, err, "connect to the peer eu.example.org at "+a.address)
}
