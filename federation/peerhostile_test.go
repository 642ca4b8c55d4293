package federation

import (
	"crypto/x509"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/peer/session"
)

// intrude opens a stream to a site with an SVID of an authority.
func (s *site) intrude(t testing.TB, a *federationtest.Authority, path string) ententev1.PeerService_ExchangeClient {
	t.Helper()
	raw, err := dialAs(t.Context(), a.MemberSVID(t, path), s.address,
		func([]*x509.Certificate) (spiffeid.ID, error) { return s.home.TrustDomain.ID(), nil })
	require.NoError(t, err)
	conn, err := peer.NewConn(s.address, raw, svidCredentials{}, grpc.MaxCallSendMsgSize(1<<30))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	call, err := ententev1.NewPeerServiceClient(conn).Exchange(t.Context())
	require.NoError(t, err)
	return call
}

// ended reads a stream to its end, and returns the termination, if any, and the status.
func ended(call ententev1.PeerService_ExchangeClient) (*ententev1.PeerTermination, error) {
	var termination *ententev1.PeerTermination
	for {
		m, err := call.Recv()
		if err != nil {
			return termination, err
		}
		if g := m.GetMessage().GetTermination(); g != nil {
			termination = g
		}
	}
}

// TestHostileStreams tests that each hostile stream ends with its named reason, and that the stored bundle is kept.
func TestHostileStreams(t *testing.T) {
	send := func(t *testing.T, call ententev1.PeerService_ExchangeClient, messages ...*ententev1.PeerMessage) {
		for _, m := range messages {
			if call.Send(&ententev1.ExchangeRequest{Message: m}) != nil {
				return // the stream was refused with a reason
			}
		}
	}
	bring := func(td string, document []byte) *ententev1.PeerMessage {
		return &ententev1.PeerMessage{
			Content: &ententev1.PeerMessage_Bundle{Bundle: &ententev1.PeerBundle{TrustDomain: td, Document: document}},
		}
	}
	hello := federationtest.Hello("us.example.org", "member-1")
	a, b := newSite(t, "eu.example.org"), newSite(t, "us.example.org")
	a.federateWith(t, b)
	third := newSite(t, "ap.example.org")
	a.create(t, spiffeRelationship(third.home, third.endpoint), third.home.Bundle(t, 1)) // it names no peer
	until(t,
		"the relationships to be read", func() bool { return len(a.manager.streams.Domains("us.example.org")) == 1 })

	t.Run("a workload of the peer", func(t *testing.T) {
		_, err := ended(a.intrude(t, b.home, "/web"))
		require.Equal(t, codes.PermissionDenied, status.Code(err))
		require.ErrorContains(t, err, "spiffe://us.example.org/web is no member of a peer's cluster")
	})
	t.Run("a path below a member's", func(t *testing.T) {
		_, err := ended(a.intrude(t, b.home, "/entente/member/a/b"))
		require.Equal(t, codes.PermissionDenied, status.Code(err))
	})
	t.Run("a cluster that is no peer", func(t *testing.T) {
		_, err := ended(a.intrude(t, third.home, "/entente/member/member-1"))
		require.Equal(t, codes.PermissionDenied, status.Code(err))
		require.ErrorContains(t, err, `eu.example.org has no active relationship that names "ap.example.org" as its `+
			`peer's home trust domain`)
	})
	t.Run("huge", func(t *testing.T) {
		call := a.intrude(t, b.home, "/entente/member/member-1")
		send(t, call, hello, bring("us.example.org", make([]byte, session.MaxMessage+1)))
		termination, _ := ended(call)
		require.Equal(t, "message_too_large", termination.GetReason())
	})
	t.Run("refused bundles", func(t *testing.T) {
		call := a.intrude(t, b.home, "/entente/member/member-1")
		send(t, call, hello, bring("us.example.org", []byte("garbage")),
			bring("us.example.org", b.home.Rotated(t).Bundle(t, 1).Marshal()), bring("us.example.org",
				third.home.Bundle(t, 9).Marshal()), bring("ap.example.org", third.home.Bundle(t, 9).Marshal()))
		for {
			m, err := call.Recv()
			require.NoError(t, err)
			ack := m.GetMessage().GetAcknowledgement()
			if ack == nil {
				continue
			}
			require.NotEmpty(t, ack.GetRefusal(), "%v", ack)
			if ack.GetVersion().GetTrustDomain() == "ap.example.org" {
				require.Equal(t, "not_wanted", ack.GetRefusal())
				break // it came last; those of one domain that are not sent yet are one answer
			}
		}
		require.Contains(t, a.ledger.Decisions(), "refuse bundle us.example.org: equivocation")
	})
	t.Run("refused bundles without end", func(t *testing.T) {
		call := a.intrude(t, b.home, "/entente/member/member-1")
		send(t, call, hello)
		for range session.MaxRefusals + 1 {
			send(t, call, bring("us.example.org", []byte("garbage")))
		}
		termination, _ := ended(call)
		require.Equal(t, "refused_bundles", termination.GetReason())
	})
	t.Run("flood", func(t *testing.T) {
		call := a.intrude(t, b.home, "/entente/member/member-1")
		send(t, call, hello)
		for range 3 * peer.MessageBurst {
			send(t, call, federationtest.Heartbeat())
		}
		termination, _ := ended(call)
		require.Equal(t, "flood", termination.GetReason())
	})
	for td, site := range map[string]*site{"us.example.org": b, "ap.example.org": third} {
		sequence, _ := a.stored(t, td).Sequence()
		require.Equal(t, uint64(1), sequence)
		require.True(t, a.stored(t, td).SameKeys(site.home.Bundle(t, 1)), td)
	}
	// The honest one is served as before.
	b.federateWith(t, a, a.address)
	b.awaitStream(t, a, true)
	b.publish(t, b.home.Rotated(t).Bundle(t, 2, b.home))
	a.awaitSequence(t, "us.example.org", 2)
}

// TestStreamFlood tests that a peer that opens one stream after the other is slowed down, and occupies no more than its
// share, however slowly earlier streams end.
func TestStreamFlood(t *testing.T) {
	a, b := newSite(t, "eu.example.org"), newSite(t, "us.example.org")
	a.federateWith(t, b)
	until(t,
		"the relationships to be read", func() bool { return len(a.manager.streams.Domains("us.example.org")) == 1 })
	refused := func() float64 {
		return a.streamsEnded(t, "too_many_streams")
	}
	for range 2 * peer.OpenBurst {
		a.intrude(t, b.home, "/entente/member/member-1") // it is not closed
		require.LessOrEqual(t, a.openStreams(t), 2.*peer.MaxStreamsPerPeer)
	}
	until(t, "some to be refused", func() bool { return refused() > 0 })

	// The budget is shared by all streams, and deleted with the relationship.
	budget := a.manager.streams.BudgetOf("us.example.org")
	require.Same(t, budget, a.manager.streams.BudgetOf("us.example.org"))
	_, err := a.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	until(t, "the budget to be deleted", func() bool { return a.manager.streams.BudgetOf("us.example.org") != budget })
}

// TestDialedPeerHasAnotherIdentity tests that no stream opens if another identity answers at the address.
func TestDialedPeerHasAnotherIdentity(t *testing.T) {
	a, b, third := newSite(t, "eu.example.org"), newSite(t, "us.example.org"), newSite(t, "ap.example.org")
	third.federateWith(t, a)
	a.create(t, spiffeRelationship(third.home, third.endpoint), third.home.Bundle(t, 1))
	a.federateWith(t, b, third.address)
	until(t, "the failure", func() bool { return a.shownStream(t, b).GetLastResult() == "unreachable" })
	require.Contains(t, a.shownStream(t, b).GetLastError(), "the other end is of another trust domain")
	require.Zero(t, third.openStreams(t))
}
