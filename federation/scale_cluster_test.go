package federation

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// createdTogether is the number of relationships per transaction of a simulation.
const createdTogether = 40

// cluster is a simulated cluster whose members are real: store, manager, sessions, scheduler.
type cluster struct {
	w       *world
	home    *simAuthority
	handler *endpoint.Handler
	counted traffic
	raft    *raftstoretest.Cluster
	// hub means that the cluster attests those with which it has relationships.
	hub bool

	mu      sync.Mutex
	members []*simMember
	leader  *simMember
	vouched map[string]cachedEntry
}

// simMember is one member of a simulated cluster.
type simMember struct {
	cluster  *cluster
	id       string
	store    *raftstore.Store
	manager  *Manager
	registry *prometheus.Registry
	stop     func()
	// polls are the connections to endpoints, and dials those for streams.
	polls, dials moments
}

// cachedEntry is a bundle as an entry of a map, for one revision.
type cachedEntry struct {
	revision raftstore.Revision
	vouched  bundle.MapEntry
}

// discardAudit accepts all events and stores none.
type discardAudit struct{}

func (discardAudit) Record(audit.Event) error { return nil }

// newCluster returns a cluster of so many members. Nothing runs before run.
func (w *world) newCluster(name string, members int) *cluster {
	w.t.Helper()
	c := &cluster{w: w, home: w.newAuthority(name), vouched: map[string]cachedEntry{}}
	var err error
	c.handler, err = endpoint.NewHandler(nil)
	require.NoError(w.t, err)
	slow := raftstore.Timing{Heartbeat: 2 * time.Second, Election: 2 * time.Second, Lease: time.Second}
	if members > 1 {
		c.raft = raftstoretest.NewCluster(w.t, members, func(_ int, config *raftstore.Config) { config.Timing = slow })
		for i := range members {
			c.addMember(c.raft.Store(i))
		}
	} else {
		c.addMember(aloneStore(w.t, slow))
	}
	federationtest.MarkAlive(w.t, c.members[0].store, c.alive()...)
	c.publish(1)
	w.add(name, c)
	return c
}

// aloneStore is [raftstoretest.New] with the timing of a member in production, so that an hour of waiting is cheap.
func aloneStore(t testing.TB, timing raftstore.Timing) *raftstore.Store {
	t.Helper()
	s, err := raftstore.Open(
		raftstore.Config{
			MemberID: "member-1",
			Timing:   timing,
			Fatal:    func(err error) { t.Errorf("the store stopped: %v", err) },
		},
	)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.Bootstrap())
	raftstoretest.AwaitLeadership(t, s)
	return s
}

func (c *cluster) addMember(s *raftstore.Store) {
	m := &simMember{cluster: c, id: s.MemberID(), store: s, registry: prometheus.NewRegistry()}
	name := c.home.td.Name()
	open := func(ctx context.Context, _ egress.Route, address string, _ spiffeid.TrustDomain) (peer.Opened, error) {
		m.dials.now()
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return peer.Opened{}, err
		}
		if err := c.w.handshake(ctx, name, host); err != nil {
			return peer.Opened{}, err
		}
		e, remote, err := c.w.host(host).accept(&c.counted, c.home.td, m.id)
		if err != nil {
			return peer.Opened{}, err
		}
		return peer.Opened{Wire: e, Remote: remote, HangUp: e.hangUp}, nil
	}
	var err error
	m.manager, err = New(Config{
		Store: s, Leader: m, Trust: newTrust(), Audit: discardAudit{}, Registerer: m.registry,
		Client: endpoint.ClientConfig{Dial: c.w.dialer(name, &c.counted, m.polls.now)},
		Peers:  peer.Transport{Home: c.home.td, Open: open},
	})
	require.NoError(c.w.t, err)
	m.manager.alive, m.manager.aliveRows = federationtest.Alive, federationtest.AliveMembers.Prefix("")
	c.members = append(c.members, m)
}

// alive returns the members that run.
func (c *cluster) alive() (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		names = append(names, m.id)
	}
	return names
}

// accept opens a stream with one of the members, as a load balancer would.
func (c *cluster) accept(from *traffic, home spiffeid.TrustDomain, member string) (*pipeEnd, string, error) {
	c.mu.Lock()
	members := c.members
	c.mu.Unlock()
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, home.Name(), member)
	m := members[int(h.Sum32())%len(members)]
	theirs, ours := newPipe(from, &c.counted, c.w.latency(home.Name(), c.home.td.Name()))
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_ = peer.NewService(m.manager.streams).Exchange(&served{ctx: calledBy(ctx, home, member), end: ours})
		ours.Finish()
		ours.hangUp()
	}()
	return theirs, m.id, nil
}

func (c *cluster) serve(w http.ResponseWriter, r *http.Request) { serveCounted(w, r, c.handler) }
func (c *cluster) sent() *traffic                               { return &c.counted }

// first returns a member that runs.
func (c *cluster) first() *simMember {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[0]
}

// publish hosts the home domain's bundle with a sequence.
func (c *cluster) publish(sequence uint64) {
	c.w.t.Helper()
	b := c.home.bundle(c.w.t, sequence)
	_, err := c.first().store.Update(context.Background(), func(tx *raftstore.Tx) error {
		return federationtest.HostedBundles.Put(tx, c.home.td.Name(), b.Row(time.Now()))
	})
	require.NoError(c.w.t, err)
}

// link is a relationship with another cluster.
type link struct {
	other *simAuthority
	// stream means that the relationship names the peer, and dial that this side opens the stream.
	stream, dial bool
	// attest means that this cluster, as a hub, has the other's bundle in its map, and hub that the other one is a hub.
	attest, hub bool
}

// relate creates relationships.
func (c *cluster) relate(links []link) {
	c.w.t.Helper()
	m, roots := c.first(), c.w.webRoots()
	for len(links) > 0 {
		some := links[:min(createdTogether, len(links))]
		links = links[len(some):]
		_, err := m.store.Update(context.Background(), func(tx *raftstore.Tx) error {
			for _, l := range some {
				name := l.other.td.Name()
				rel := &ententev1.Relationship{
					TrustDomain: name, Url: "https://" + name + "/",
					Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB, WebRoots: roots, Attest: l.attest,
				}
				if l.stream {
					rel.Peer = &ententev1.Peer{HomeTrustDomain: name}
				}
				if l.dial {
					rel.Peer.Addresses = []string{name + ":8443"}
				}
				if l.hub {
					rel.Hub = &ententev1.Hub{Include: []string{"." + simDomain}}
				}
				want, err := relationship.FromRequest(rel)
				if err == nil {
					err = m.manager.create(tx, want, l.other.bundle(c.w.t, 1), "simulation", time.Now())
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(c.w.t, err)
	}
}
