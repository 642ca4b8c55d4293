package federation

import (
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
)

// TestStreamUpdatesBothSides tests that a change of either side's bundle reaches the other one and is acknowledged,
// although the hint is an hour.
func TestStreamUpdatesBothSides(t *testing.T) {
	a, b := pair(t)
	next := a.home.Rotated(t)
	a.publish(t, next.Bundle(t, 2, a.home))
	b.awaitSequence(t, "eu.example.org", 2)
	a.awaitAcknowledged(t, b, 2)
	b.publish(t, b.home.Rotated(t).Bundle(t, 5, b.home))
	a.awaitSequence(t, "us.example.org", 5)
	b.awaitAcknowledged(t, a, 5)

	shown := a.shownStream(t, b)
	require.Equal(t, ententev1.PeerDirection_PEER_DIRECTION_OUTGOING, shown.GetDirection())
	require.Equal(t, "member-1", shown.GetRemoteMember())
	require.Equal(t, ententev1.PeerDirection_PEER_DIRECTION_INCOMING, b.shownStream(t, a).GetDirection())
	require.Contains(t, b.ledger.Decisions(), "accept bundle eu.example.org: done")
}

// TestStreamSurvivesRotation tests that a stream continues while either root is replaced, and that the next stream
// opens.
func TestStreamSurvivesRotation(t *testing.T) {
	a, b := pair(t)
	next := a.home.Rotated(t)
	a.publish(t, next.Bundle(t, 2, a.home))
	b.awaitSequence(t, "eu.example.org", 2)
	a.publish(t, a.home.Bundle(t, 3))
	b.awaitSequence(t, "eu.example.org", 3)
	a.awaitAcknowledged(t, b, 3)
	require.True(t, a.shownStream(t, b).GetConnected())
}

// TestSuspendAndDeleteEndStream tests that the other side receives the reason.
func TestSuspendAndDeleteEndStream(t *testing.T) {
	a, b := pair(t)
	_, err := b.service.SuspendRelationship(t.Context(),
		&ententev1.SuspendRelationshipRequest{TrustDomain: "eu.example.org"})
	require.NoError(t, err)
	a.awaitStream(t, b, false)
	until(t, "the reason", func() bool {
		return a.shownStream(t, b).GetLastResult() == "suspended" || a.shownStream(t, b).GetLastResult() == "refused"
	})
	_, err = b.service.ResumeRelationship(t.Context(),
		&ententev1.ResumeRelationshipRequest{TrustDomain: "eu.example.org"})
	require.NoError(t, err)
	a.awaitStream(t, b, true)

	_, err = a.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	b.awaitStream(t, a, false)
	shown := b.shownStream(t, a)
	require.Equal(t, "ended", shown.GetLastResult())
	require.Contains(t, shown.GetLastError(), "eu.example.org has no relationship any more that names this peer")
	require.Nil(t, a.stored(t, "us.example.org"))
	require.NotNil(t, b.stored(t, "eu.example.org"), "the other side keeps what it has")
}

// TestGivenUpStreamHasItsReason tests that both sides know why the side that dials gives its stream up, and that
// neither takes it for one that broke.
func TestGivenUpStreamHasItsReason(t *testing.T) {
	for reason, giveUp := range map[string]func(t *testing.T, dials *site){
		"moved": func(t *testing.T, dials *site) {
			federationtest.MarkAlive(t, dials.store, "another-member")
		},
		"suspended": func(t *testing.T, dials *site) {
			_, err := dials.service.SuspendRelationship(t.Context(),
				&ententev1.SuspendRelationshipRequest{TrustDomain: "us.example.org"})
			require.NoError(t, err)
		},
		"ended": func(t *testing.T, dials *site) {
			_, err := dials.service.DeleteRelationship(t.Context(),
				&ententev1.DeleteRelationshipRequest{TrustDomain: "us.example.org"})
			require.NoError(t, err)
		},
	} {
		t.Run(reason, func(t *testing.T) {
			a, b := pair(t)
			giveUp(t, a)
			b.awaitStream(t, a, false)
			shown := b.shownStream(t, a)
			require.Equal(t, reason, shown.GetLastResult(), shown.GetLastError())
			require.NotContains(t, shown.GetLastError(), "context canceled")
			if reason != "ended" {
				until(t, "the reason on the side that dials", func() bool {
					return a.shownStream(t, b).GetLastResult() == reason
				})
			}
		})
	}
}

// TestPollingReplacesStream tests that the endpoint is polled at once when the stream ends, although the hint is an
// hour.
func TestPollingReplacesStream(t *testing.T) {
	a, b := pair(t)
	before := a.endpoint.Requests()
	next := a.home.Bundle(t, 2, a.home.Rotated(t))
	a.endpoint.Serve(next)
	a.manager.streams.Drain()
	b.awaitSequence(t, "eu.example.org", 2)
	require.Greater(t, a.endpoint.Requests(), before)
	until(t, "the reason", func() bool { return b.shownStream(t, a).GetLastResult() == "draining" })
}

// TestBothDial tests that the dial of the lower home trust domain is kept, and that the other side stops dialing.
func TestBothDial(t *testing.T) {
	a, b := newSite(t, "eu.example.org"), newSite(t, "us.example.org")
	b.federateWith(t, a, a.address)
	a.federateWith(t, b, b.address)
	until(t, "one stream, that of eu.example.org", func() bool {
		out, in := a.shownStream(t, b), b.shownStream(t, a)
		return a.openStreams(t) == 1 && b.openStreams(t) == 1 &&
			out.GetDirection() == ententev1.PeerDirection_PEER_DIRECTION_OUTGOING &&
			in.GetDirection() == ententev1.PeerDirection_PEER_DIRECTION_INCOMING && out.GetConnected() &&
			in.GetConnected()
	})
	kept := a.shownStream(t, b).GetSince().AsTime()
	a.publish(t, a.home.Rotated(t).Bundle(t, 2, a.home))
	a.awaitAcknowledged(t, b, 2)
	b.publish(t, b.home.Rotated(t).Bundle(t, 2, b.home))
	b.awaitAcknowledged(t, a, 2)
	require.Equal(t, kept, a.shownStream(t, b).GetSince().AsTime(), "it is the same stream")
}

// TestUnstoredBundleIsSentAgain tests that a member that cannot write its audit log ends the stream, and receives the
// bundle again.
func TestUnstoredBundleIsSentAgain(t *testing.T) {
	a, b := pair(t)
	b.ledger.Fill(true)
	a.publish(t, a.home.Rotated(t).Bundle(t, 2, a.home))
	until(t, "the reason", func() bool {
		return a.shownStream(t, b).GetLastResult() == "not_stored" ||
			b.shownStream(t, a).GetLastResult() == "not_stored"
	})
	b.ledger.Fill(false)
	b.awaitSequence(t, "eu.example.org", 2)
	a.awaitAcknowledged(t, b, 2)
}

// TestUnknownPeerIsRefused tests that a peer that no relationship names is refused, even with a valid SVID.
func TestUnknownPeerIsRefused(t *testing.T) {
	a, b := newSite(t, "eu.example.org"), newSite(t, "us.example.org")
	rel := spiffeRelationship(a.home, a.endpoint) // it names no peer
	b.create(t, rel, a.home.Bundle(t, 1))
	a.federateWith(t, b, b.address)
	until(t, "the refusal", func() bool { return a.shownStream(t, b).GetLastResult() == "refused" })
	require.Contains(t, a.shownStream(t, b).GetLastError(),
		`us.example.org has no active relationship that names "eu.example.org"`)
}
