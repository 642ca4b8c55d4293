package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// running are the members of a cluster that run.
func (c *cluster) running() []*process {
	return slices.DeleteFunc(slices.Clone(c.members), func(p *process) bool { return !p.isRunning() })
}

// sameStream reports whether two members report one stream. Its age comes with heartbeats.
func sameStream(a, b *ententev1.PeerStream) bool {
	apart := a.GetSince().AsTime().Sub(b.GetSince().AsTime()).Abs()
	return a.GetMember() == b.GetMember() && a.GetRemoteMember() == b.GetRemoteMember() && apart < 2*time.Second
}

// holder waits until a cluster reports that one of its running members has a stream with a domain, other than the given
// one, and returns it.
func (c *cluster) holder(domain string, other *ententev1.PeerStream) (*process, *ententev1.PeerStream) {
	c.t.Helper()
	var holder *process
	var held *ententev1.PeerStream
	eventually(c.t, fmt.Sprintf("%s has a stream with %s", c.name, domain), func() error {
		r, err := federationOf(
			c.running()[0],
		).GetRelationship(c.t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: domain})
		if err != nil {
			return err
		}
		for _, s := range r.GetStreams() {
			for _, p := range c.running() {
				if p.id == s.GetMember() && s.GetConnected() && len(s.GetConfirmed()) > 0 && !sameStream(s, other) {
					holder, held = p, s
					return nil
				}
			}
		}
		return fmt.Errorf("%v", r.GetStreams())
	})
	return holder, held
}

// sequenceAt is that of a domain's bundle as a member hands it out.
func sequenceAt(t *testing.T, p *process, domain string) uint64 {
	t.Helper()
	b, err := p.socket().Bundles().GetBundle(t.Context(), &ententev1.GetBundleRequest{TrustDomain: domain})
	require.NoError(t, err)
	return b.GetSequence()
}

// changed has a cluster publish another bundle, by revoking a JWT key, and returns its sequence.
func changed(t *testing.T, c *cluster) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	p := c.running()[0]
	eventually(t, "a JWT key is revoked", func() error {
		active := authoritiesOf(t, p, kindJWT, stateActive)
		if len(active) == 0 {
			return fmt.Errorf("none is active")
		}
		_, err := p.socket().Authorities().RevokeAuthority(ctx, &ententev1.RevokeAuthorityRequest{
			TrustDomain: c.domain, What: &ententev1.RevokeAuthorityRequest_Id{Id: active[0].GetId()},
		})
		return err
	})
	return sequenceAt(t, p, c.domain)
}

// awaitArrival waits until the other cluster has a sequence, or a later one, and has acknowledged it.
func awaitArrival(t *testing.T, from, to *cluster, sequence uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s has version %d of %s", to.name, sequence, from.domain), func() error {
		for _, p := range to.running() {
			if has := sequenceAt(t, p, from.domain); has < sequence {
				return fmt.Errorf("%s has %d", p.id, has)
			}
		}
		return nil
	})
	eventually(t, fmt.Sprintf("%s knows that %s has it", from.name, to.name), func() error {
		r, err := federationOf(
			from.running()[0],
		).GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: to.domain})
		if err != nil {
			return err
		}
		for _, s := range r.GetStreams() {
			for _, a := range s.GetAcknowledgements() {
				if s.GetConnected() && a.GetTrustDomain() == from.domain && a.GetSequence() >= sequence &&
					!a.GetPending() {
					return nil
				}
			}
		}
		return fmt.Errorf("%v", r.GetStreams())
	})
}

// TestStreamOverChangesOfMembersAndLeaders: the leader or the owner of the stream on either side stops; changes still
// arrive, are acknowledged to the next leader, and a stream is open again. Both sides poll once an hour.
func TestStreamOverChangesOfMembersAndLeaders(t *testing.T) {
	eu, us := newCluster(t, "eu", 3, endpointHint("1h")), newCluster(t, "us", 3, endpointHint("1h"))
	peerUp(t, eu, us)
	both := func(what string) {
		t.Helper()
		t.Log(what)
		theirs, ours := changed(t, us), changed(t, eu)
		awaitArrival(t, eu, us, ours)
		awaitArrival(t, us, eu, theirs)
	}
	_, first := eu.holder(us.domain, nil)
	for _, c := range []*cluster{eu, us} {
		was := c.leader()
		eventually(t, "another member of "+c.name+" leads", func() error {
			_, err := was.socket().Cluster().TransferLeadership(t.Context(), &ententev1.TransferLeadershipRequest{})
			return err
		})
	}
	both("after a change of the leader on both sides")
	_, still := eu.holder(us.domain, nil)
	require.True(t, sameStream(first, still), "%v is not the stream %v", still, first)

	// The member at which the stream ends is killed, and then the one that opened it. What changes meanwhile is not
	// lost.
	lost, incoming := us.holder(eu.domain, nil)
	require.Equal(t, ententev1.PeerDirection_PEER_DIRECTION_INCOMING, incoming.GetDirection())
	lost.kill()
	meanwhile := changed(t, eu)
	awaitArrival(t, eu, us, meanwhile)
	both("after the loss of the member that accepted")
	lost, outgoing := eu.holder(us.domain, first)
	require.Equal(t, ententev1.PeerDirection_PEER_DIRECTION_OUTGOING, outgoing.GetDirection())
	lost.kill()
	meanwhile = changed(t, us)
	awaitArrival(t, us, eu, meanwhile)
	both("after the loss of the member that opened it")
}

// TestStreamEndsWithTheAuthorityOfItsSVID: once the authority that signed a member's SVID is out of the bundle that the
// other side has stored, that side closes the stream; the member has another SVID, and there is a stream again. On the
// side that opens it, and on the one that accepts it.
func TestStreamEndsWithTheAuthorityOfItsSVID(t *testing.T) {
	eu, us := newCluster(t, "eu", 2, quick), newCluster(t, "us", 2, quick)
	peerUp(t, eu, us)
	for _, side := range []struct{ mine, other *cluster }{{eu, us}, {us, eu}} {
		_, was := side.mine.holder(side.other.domain, nil)
		for _, a := range everySigner(t, side.mine) { // one of them has signed the SVID of the stream
			_, err := side.mine.members[0].socket().
				Authorities().
				RevokeAuthority(t.Context(), &ententev1.RevokeAuthorityRequest{
					TrustDomain: side.mine.domain, What: &ententev1.RevokeAuthorityRequest_Id{Id: a.GetId()},
				})
			require.NoError(t, err)
			everySigner(t, side.mine)
			awaitArrival(t, side.mine, side.other, sequenceAt(t, side.mine.members[0], side.mine.domain))
		}
		eventually(t, side.other.name+" has closed it", func() error {
			for _, p := range side.other.members {
				for line := range strings.Lines(p.logs()) {
					if strings.Contains(line, "connection closed") &&
						strings.Contains(line, "spiffe://"+side.mine.domain+"/entente/member/") &&
						strings.Contains(line, "reason=unverified_svid") {
						return nil
					}
				}
			}
			return fmt.Errorf("it has not")
		})
		side.mine.holder(side.other.domain, was)
		awaitArrival(t, side.mine, side.other, changed(t, side.mine))
		awaitArrival(t, side.other, side.mine, changed(t, side.other))
	}
}

// TestStreamOverTheRotationOfEitherRoot: while roots and SVIDs of both sides are renewed on schedule, no connection is
// rejected, and at the end a stream is open between members that have none of the keys with which the first one was
// opened.
func TestStreamOverTheRotationOfEitherRoot(t *testing.T) {
	t.Parallel() // it waits for the roots, most of the time
	const short = `
authority {
  ca_ttl        = "16s"
  x509_svid_ttl = "5s"
  jwt_svid_ttl  = "5s"
  signing_grace = "5s"
}
upstream "selfsigned" { root_ttl = "64s" }
`
	eu, us := newCluster(t, "eu", 1, quick+short), newCluster(t, "us", 1, quick+short)
	peerUp(t, eu, us)
	_, was := eu.holder(us.domain, nil)
	roots := func(c *cluster) []string {
		var all []string
		for _, a := range issue(t, c.members[0], "spiffe://"+c.domain+"/web").bundle.X509Authorities() {
			all = append(all, fmt.Sprintf("%x", a.SubjectKeyId))
		}
		return all
	}
	first := append(roots(eu), roots(us)...)
	for began := time.Now(); ; {
		now := append(roots(eu), roots(us)...)
		if !slices.ContainsFunc(now, func(root string) bool { return slices.Contains(first, root) }) {
			break
		}
		require.Less(t, time.Since(began), 3*waitLimit, "the roots were not replaced")
		eventually(t, "a stream", func() error { // at any time
			r, err := federationOf(
				eu.members[0],
			).GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: us.domain})
			if err == nil && (len(r.GetStreams()) == 0 || !r.GetStreams()[0].GetConnected()) {
				err = fmt.Errorf("%v", r.GetStreams())
			}
			return err
		})
		<-timerUntil(t, time.Now().Add(time.Second))
	}
	eu.holder(us.domain, was)
	awaitArrival(t, eu, us, changed(t, eu))
	awaitArrival(t, us, eu, changed(t, us))
	for _, p := range append(slices.Clone(eu.members), us.members...) {
		require.Contains(t, p.logs(), "reason=expired_svid", "a connection ends with the SVID that opened it")
		require.NotContains(t, p.logs(), "unverified_svid")
		require.NotContains(t, p.logs(), "result=refused")
	}
}
