package port_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/internal/egress/proxytest"
)

// A member of another cluster is verified by its SPIFFE ID and the stored bundle.
func TestDialPeer(t *testing.T) {
	a := newMember(t, "eu-1").form()
	home(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	_, err := a.port.DialPeer(ctx, egress.Route{}, a.address, spiffeid.RequireTrustDomainFromString("us.test"))
	require.ErrorContains(t, err, "is spiffe://eu.example.org/entente/member/eu-1, and not a member of us.test")

	// It is a member of its home domain.
	conn, err := a.port.DialPeer(ctx, egress.Route{}, a.address, spiffeid.RequireTrustDomainFromString(homeDomain))
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	// An SVID that is signed by an authority outside of the bundle is refused.
	other := newAuthority(t, homeDomain, time.Now())
	forged := other.issue("spiffe://"+homeDomain+"/entente/member/eu-1", time.Now().Add(time.Hour))
	a.api.set(&forged, newAuthority(t, homeDomain, time.Now()).bundles(homeDomain).bundles)
	_, err = a.port.DialPeer(ctx, egress.Route{}, a.address, spiffeid.RequireTrustDomainFromString(homeDomain))
	require.ErrorContains(t, err, "connect to the peer eu.example.org at "+a.address)
}

// TestDialPeerThroughAProxy: the other end is verified as without a proxy, and sees the proxy's address alone.
func TestDialPeerThroughAProxy(t *testing.T) {
	a := newMember(t, "eu-1").form()
	home(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	const place = "eu-1.invalid:7440"
	proxy := proxytest.New(t, map[string]string{place: a.address})
	route, err := egress.ParseRoute(proxy.URL)
	require.NoError(t, err)
	conn, err := a.port.DialPeer(ctx, route, place, spiffeid.RequireTrustDomainFromString(homeDomain))
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	_, err = a.port.DialPeer(ctx, route, place, spiffeid.RequireTrustDomainFromString("us.test"))
	require.ErrorContains(t, err, "and not a member of us.test")
	require.Equal(t, []string{place, place}, proxy.Connected())

	proxy.Refuse(http.StatusForbidden)
	_, err = a.port.DialPeer(ctx, route, place, spiffeid.RequireTrustDomainFromString(homeDomain))
	require.ErrorIs(t, err, egress.ErrProxy)
}
