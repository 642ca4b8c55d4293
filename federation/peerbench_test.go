package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/svid"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// manyStreams is the number of streams that a member supports.
const manyStreams = 1000

// lightPeer is the other end of a stream: a real session over gRPC and TLS 1.3, with an X509-SVID of its own domain. It
// verifies received bundles as a member does, and keeps them in memory.
type lightPeer struct {
	own     *federationtest.Authority
	svid    tls.Certificate
	session *session.Session
	world   session.World
	current *bundle.Bundle
}

func newLightPeer(t testing.TB, name string, other *site) *lightPeer {
	t.Helper()
	p := &lightPeer{own: federationtest.NewAuthority(t, name).Every(time.Hour), current: other.home.Bundle(t, 1)}
	p.svid = p.own.MemberSVID(t, "/entente/member/member-1")
	own := p.own.Bundle(t, 1)
	hosted := session.Hosted{Document: own.Marshal(), Hint: time.Hour}
	hosted.Version.Sequence, hosted.Version.Ordered = own.Sequence()
	hosted.Version.Digest = own.Digest()
	p.world = session.World{Hosted: map[string]session.Hosted{name: hosted}}
	p.hold(other.home.TrustDomain.Name(), p.current)
	p.session = session.New(name, "member-1", other.home.TrustDomain.Name(), "member-1", true, time.Now())
	return p
}

func (p *lightPeer) hold(td string, b *bundle.Bundle) relationship.Version {
	p.current = b
	h := relationship.NewHolding(b, time.Time{}, 1)
	p.world.Plan = relationship.PeerPlan{Home: td, Wanted: map[string]relationship.Holding{td: h}}
	return h.Version()
}

// run keeps the stream until ctx ends.
func (p *lightPeer) run(ctx context.Context, other *site) error {
	raw, err := dialAs(ctx, p.svid, other.address, func(chain []*x509.Certificate) (spiffeid.ID, error) {
		verified, err := svid.Verify(chain, p.current, time.Now())
		return verified.ID, err
	})
	if err != nil {
		return err
	}
	conn, err := peer.NewConn(other.address, raw, svidCredentials{})
	if err != nil {
		return err
	}
	defer conn.Close()
	call, err := ententev1.NewPeerServiceClient(conn).Exchange(ctx)
	if err != nil {
		return err
	}
	messages, broken := make(chan *ententev1.PeerMessage), make(chan error, 1)
	go func() {
		for {
			m, err := call.Recv()
			if err != nil {
				broken <- err
				return
			}
			select {
			case messages <- m.GetMessage():
			case <-ctx.Done():
				return
			}
		}
	}()
	beat := time.NewTimer(0)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case m := <-messages:
			if err := p.receive(m); err != nil {
				return err
			}
		case <-beat.C:
		}
		for _, m := range p.session.Next(p.world, time.Now()) {
			if err := call.Send(&ententev1.ExchangeRequest{Message: m}); err != nil {
				return err
			}
		}
		beat.Reset(time.Until(p.session.NextHeartbeat))
	}
}

func (p *lightPeer) receive(m *ententev1.PeerMessage) error {
	t, err := p.session.Receive(m, p.world, time.Now())
	if err != nil || t.Bundle == nil {
		return err
	}
	next, _, err := bundle.Parse(p.current.TrustDomain(), t.Bundle.GetDocument())
	if err != nil {
		return err
	}
	if err := relationship.Accept(p.current, next); err != nil {
		return err
	}
	td := t.Bundle.GetTrustDomain()
	p.session.Reply(td, p.hold(td, next), "")
	return nil
}

// trustPeers creates relationships with light peers, which open the streams.
func trustPeers(b *testing.B, s *site, peers []*lightPeer) {
	b.Helper()
	for some := range slices.Chunk(peers, 100) {
		_, err := s.store.Update(context.Background(), func(tx *raftstore.Tx) error {
			for _, p := range some {
				name := p.own.TrustDomain.Name()
				if err := relationship.Relationships.Put(tx, name, &statev1.Relationship{
					TrustDomain: name, Url: "https://127.0.0.1:1/", Profile: federationtest.SpiffeProfile,
					EndpointSpiffeId: p.own.EndpointID().String(), Generation: 1,
					Peer: &statev1.RelationshipPeer{HomeTrustDomain: name},
				}); err != nil {
					return err
				}
				if err := relationship.ForeignBundles.Put(tx, name, p.own.Bundle(b, 1).Row(time.Now())); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(b, err)
	}
	until(b, "the relationships to be read", func() bool { return len(s.manager.catalog.Names()) == len(peers) })
}

// acknowledgedBy counts the peers that have acknowledged a sequence of the site's home domain.
func (s *site) acknowledgedBy(t testing.TB, sequence uint64) (n int) {
	acknowledged, _, err := s.manager.streams.Acknowledged(t.Context(), s.home.TrustDomain.Name())
	require.NoError(t, err)
	for _, acknowledgement := range acknowledged {
		if acknowledgement.Sequence >= sequence {
			n++
		}
	}
	return n
}

// BenchmarkPeerStreams measures the time from the commit of a new bundle until each of 1,000 peers has acknowledged it,
// over as many streams with both ends on this machine. The target is 1 s at the 99th percentile.
func BenchmarkPeerStreams(b *testing.B) {
	s := newSite(b, "eu.example.org")
	peers := make([]*lightPeer, manyStreams)
	for i := range peers {
		peers[i] = newLightPeer(b, fmt.Sprintf("p%04d.example.org", i), s)
	}
	trustPeers(b, s, peers)
	ctx, cancel := context.WithCancel(context.Background())
	streams, ctx := errgroup.WithContext(ctx)
	for _, p := range peers {
		streams.Go(func() error { return p.run(ctx, s) })
	}
	defer func() {
		cancel()
		require.NoError(b, streams.Wait())
	}()
	look := time.NewTicker(25 * time.Millisecond) // each look queries the leader
	defer look.Stop()
	await := func(sequence uint64) {
		for s.acknowledgedBy(b, sequence) < manyStreams {
			select {
			case <-look.C:
			case <-ctx.Done():
				b.Fatal(streams.Wait())
			}
		}
	}
	await(1)
	var took []time.Duration
	sequence := uint64(1)
	for b.Loop() {
		sequence++
		next := s.home.Bundle(b, sequence)
		began := time.Now()
		s.publish(b, next)
		await(sequence)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "ms-p50")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "ms-p99")
	b.ReportMetric(0, "ns/op")
}
