package federation

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

// room is a federation under test.
type room struct {
	store    *raftstore.Store
	manager  *Manager
	service  *Service
	ledger   *federationtest.AuditLog
	registry *prometheus.Registry
	leader   *federationtest.Leader
}

// newRoom returns a room on a store of one member. Nothing runs before run.
func newRoom(t testing.TB, adjust ...func(*Config)) *room {
	t.Helper()
	store := raftstoretest.New(t)
	federationtest.MarkAlive(t, store, store.MemberID())
	return newRoomOn(t, store, adjust...)
}

func newRoomOn(t testing.TB, store *raftstore.Store, adjust ...func(*Config)) *room {
	t.Helper()
	r := &room{
		store:    store,
		ledger:   &federationtest.AuditLog{},
		registry: prometheus.NewRegistry(),
		leader:   &federationtest.Leader{},
	}
	c := Config{
		Store: r.store, Leader: r.leader, Trust: newTrust(), Audit: r.ledger,
		MinRefresh: relationship.LowestMinRefresh, Registerer: r.registry,
		Client: endpoint.ClientConfig{Timeout: 5 * time.Second},
	}
	for _, f := range adjust {
		f(&c)
	}
	var err error
	r.manager, err = New(c)
	require.NoError(t, err)
	r.manager.alive, r.manager.aliveRows = federationtest.Alive, federationtest.AliveMembers.Prefix("")
	r.leader.Sections = map[string]federationtest.Section{
		observation.Name: r.manager.Section(),
		peer.Section:     r.manager.streams.Reports(),
	}
	r.service = NewService(r.manager)
	return r
}

// run runs the manager until the test ends, or stop is called.
func (r *room) run(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.manager.Run(ctx) }()
	var beats sync.WaitGroup
	beats.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				r.leader.Beat()
			}
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		beats.Wait()
		require.NoError(t, <-ended)
	})
	t.Cleanup(stop)
	return stop
}

// await waits until the condition holds for the state of the store, and checks it after each change.
func (r *room) await(t testing.TB, what string, condition func(v *raftstore.View) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), federationtest.WaitLimit)
	defer cancel()
	err := feed.Latest(
		ctx,
		r.store,
		[]raftstore.Prefix{relationship.Relationships.Prefix(""), relationship.ForeignBundles.Prefix("")},
		func(v *raftstore.View) error {
			if condition(v) {
				return errSeen
			}
			return nil
		},
	)
	require.ErrorIs(t, err, errSeen, "waiting for %s", what)
}

var errSeen = errors.New("seen")

// awaitState waits until a trust domain is in a state.
func (r *room) awaitState(t testing.TB, td string, want standing.State) {
	t.Helper()
	r.await(t, td+" to be "+want.String(), func(v *raftstore.View) bool {
		got, err := statusOf(v, td)
		require.NoError(t, err)
		return got.State == want
	})
}

// awaitSequence waits until a bundle with a sequence is stored.
func (r *room) awaitSequence(t testing.TB, td string, want uint64) {
	t.Helper()
	r.await(t, td+"'s bundle", func(v *raftstore.View) bool {
		row, found, err := relationship.ForeignBundles.Get(v, td)
		require.NoError(t, err)
		if !found {
			return false
		}
		b, err := trust.Parse(row.Value)
		require.NoError(t, err)
		n, _ := b.Sequence()
		return n == want
	})
}

// host makes the cluster the authority of a domain.
func (r *room) host(t testing.TB, a *federationtest.Authority) {
	t.Helper()
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return federationtest.HostedBundles.Put(tx, a.TrustDomain.Name(), a.Bundle(t, 1).Row(time.Now()))
	})
	require.NoError(t, err)
}

// spiffeRelationship returns a self-serving relationship with a peer.
func spiffeRelationship(a *federationtest.Authority, p *federationtest.Endpoint) *ententev1.Relationship {
	return &ententev1.Relationship{
		TrustDomain: a.TrustDomain.Name(), Url: p.URL, Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
		EndpointSpiffeId: a.EndpointID().String(),
	}
}

func (r *room) create(t testing.TB, rel *ententev1.Relationship, bootstrap *bundle.Bundle) *ententev1.Relationship {
	t.Helper()
	req := &ententev1.CreateRelationshipRequest{Relationship: rel}
	if bootstrap != nil {
		req.BootstrapBundle = bootstrap.Marshal()
	}
	out, err := r.service.CreateRelationship(t.Context(), req)
	require.NoError(t, err)
	return out
}

func (r *room) refresh(t testing.TB, td string) *ententev1.Relationship {
	t.Helper()
	out, err := r.service.RefreshRelationship(t.Context(), &ententev1.RefreshRelationshipRequest{TrustDomain: td})
	require.NoError(t, err)
	return out
}

// stored returns the stored bundle of a domain, or nil.
func (r *room) stored(t testing.TB, td string) *bundle.Bundle {
	t.Helper()
	row, found, err := relationship.ForeignBundles.Get(r.store.View(), td)
	require.NoError(t, err)
	if !found {
		return nil
	}
	b, err := trust.Parse(row.Value)
	require.NoError(t, err)
	return b
}

// newTrust returns an index over [federationtest.HostedBundles] and the tables of federation. A domain with a bundle is
// hosted.
func newTrust() *trust.Index { return federationtest.Trust(relationship.TrustSource()) }

// statusOf returns the status of a trust domain.
func statusOf(r raftstore.Reader, td string) (standing.Status, error) {
	d, err := newTrust().Decide(r, td)
	return d.Status, err
}
