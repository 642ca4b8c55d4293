package port_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/shorttest"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

const (
	clusterName = "eu"
	homeDomain  = "eu.example.org"
	waitLimit   = 2 * time.Minute // for waits that last a second on an idle machine
	glance      = 20 * time.Millisecond
)

// member is one member over TLS on loopback, with the parts that package node connects to the port.
type member struct {
	t         *testing.T
	id        string
	dir       string
	address   string
	addresses []string // those of the configuration file
	identity  *memberid.Identity
	directory *directory.Directory
	port      *port.Port
	store     *raftstore.Store
	manager   *membership.Manager
	registry  *prometheus.Registry
	api       *credentialsOfClients
	sections  map[string]membership.Section
	prober    switchedProber

	// checkpoints is the number of log entries between two comparisons of the members' states; 0: the default.
	checkpoints uint64

	// ahead is the offset of the member's clock in nanoseconds.
	ahead   atomic.Int64
	removed chan membership.Removal
	fatal   chan error                      // why the store stopped by itself
	dialed  func(address string, err error) // of the attempts to find other members; may be nil
	stop    func()
}

// credentialsOfClients holds the member's own SVID and the bundles that it trusts. It is empty until a test sets them.
type credentialsOfClients struct {
	mu      sync.Mutex
	svid    *tls.Certificate
	bundles map[spiffeid.TrustDomain][]*x509.Certificate
}

func (c *credentialsOfClients) ServerCertificate() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.svid == nil {
		return nil, errors.New("every SVID has expired")
	}
	return c.svid, nil
}

func (c *credentialsOfClients) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, ok := c.bundles[td]; ok {
		return x509bundle.FromX509Authorities(td, b), nil
	}
	return nil, errors.New("there is no relationship with it")
}

func (c *credentialsOfClients) set(svid *tls.Certificate, bundles map[spiffeid.TrustDomain][]*x509.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.svid, c.bundles = svid, bundles
}

// switchedProber forwards to the prober that was set last.
type switchedProber struct {
	mu sync.Mutex
	to membership.Prober
}

func (p *switchedProber) use(to membership.Prober) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
}

func (p *switchedProber) ProbeIdentity(ctx context.Context, address string, want memberid.Digest) error {
	p.mu.Lock()
	to := p.to
	p.mu.Unlock()
	return to.ProbeIdentity(ctx, address, want)
}

type noAudit struct{}

func (noAudit) AuditJoin(_ membership.Joiner, admit func() (membership.Admission, error)) error {
	_, err := admit()
	return err
}

func (noAudit) AuditRefusal(membership.Joiner, error) {}

func (noAudit) AuditRemoval(_, _ string, remove func() (raftstore.Revision, error)) error {
	_, err := remove()
	return err
}

// newMember returns a member with an empty data folder and an address of its own. It does not run.
func newMember(t *testing.T, id string) *member {
	t.Helper()
	shorttest.Skip(t, "runs whole members")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return &member{t: t, id: id, dir: t.TempDir(), address: l.Addr().String(), api: &credentialsOfClients{}}
}

func (m *member) now() time.Time { return time.Now().Add(time.Duration(m.ahead.Load())) }

// start starts the member with the state in its data folder.
func (m *member) start() *member {
	m.t.Helper()
	t := m.t
	logger := hclog.New(&hclog.LoggerOptions{Name: m.id, Level: hclog.LevelFromString(os.Getenv("ENTENTE_TEST_LOG")),
		Output: os.Stderr})
	if os.Getenv("ENTENTE_TEST_LOG") == "" {
		logger = hclog.NewNullLogger()
	}
	var err error
	m.identity, err = memberid.LoadIdentity(filepath.Join(m.dir, "identity.key"))
	require.NoError(t, err)
	m.directory = directory.New(m.id, logger)
	listener, err := net.Listen("tcp", m.address)
	require.NoError(t, err)
	m.registry = prometheus.NewRegistry()
	m.port, err = port.New(port.Config{
		Listener: listener, Self: m.id, Identity: m.identity.Certificate, Members: m.directory,
		Certificates: m.api, Trust: m.api, Logger: logger.Named("port"), Registerer: m.registry, Now: m.now,
	})
	require.NoError(t, err)
	members := filepath.Join(m.dir, "members")
	require.NoError(t, m.directory.LoadStatements(members))
	m.directory.OnLearned(func() {
		m.port.RecheckMembers()
		if err := m.directory.Save(members); err != nil {
			t.Errorf("save the members of %s: %v", m.id, err)
		}
	})
	m.fatal = make(chan error, 1)
	m.store, err = raftstore.Open(raftstore.Config{
		MemberID: m.id, Identity: m.identity.Digest, Address: m.address, Dir: filepath.Join(m.dir, "raft"),
		Stream: m.port.Raft(m.address), Dial: m.port.Conn, Logger: logger.Named("store"),
		Fatal: func(err error) { m.fatal <- err },
		Timing: raftstore.Timing{
			Heartbeat: 700 * time.Millisecond, Election: 700 * time.Millisecond, Lease: 700 * time.Millisecond,
			CheckpointEntries: m.checkpoints,
		},
	})
	require.NoError(t, err)
	m.directory.Attach(m.store.Servers())
	m.prober.use(m.port)
	m.removed = make(chan membership.Removal, 8)
	m.manager, err = membership.New(membership.Config{
		Store: m.store, Directory: m.directory, Conns: m.port, Prober: &m.prober,
		Self: memberid.Self{ID: m.id, Region: "eu-west-1", Zone: "eu-west-1a", Address: m.address,
			Version: "test", Identity: m.identity.Digest},
		Identity: m.identity, Addresses: m.addresses,
		Dialer:      join.Dialer{Dial: m.dialJoin, Credentials: port.Credentials()},
		ClusterName: clusterName, HomeTrustDomain: homeDomain, Caller: port.MemberFrom, Audit: noAudit{},
		OnChange: m.port.RecheckMembers, Logger: logger.Named("membership"), Registerer: m.registry, Now: m.now,
		OnRemove: []func(*raftstore.Tx, membership.Removal) error{func(_ *raftstore.Tx, r membership.Removal) error {
			select {
			case m.removed <- r:
			default:
			}
			return nil
		}},
		HeartbeatEvery: 200 * time.Millisecond, AliveTimeout: 2 * time.Second, MendEvery: 100 * time.Millisecond,
	})
	require.NoError(t, err)
	for name, s := range m.sections {
		m.manager.Register(name, s)
	}

	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	run := func(what string, fn func(context.Context) error) {
		tasks.Go(func() {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("%s of %s: %v", what, m.id, err)
			}
		})
	}
	run("port", m.port.Run)
	servers := m.serve(&tasks)
	run("membership", m.manager.Run)
	var once sync.Once
	m.stop = func() {
		once.Do(func() {
			cancel()
			if err := m.store.Close(); err != nil {
				t.Errorf("close the store of %s: %v", m.id, err)
			}
			for _, s := range servers {
				s.Stop()
			}
			tasks.Wait()
		})
	}
	t.Cleanup(m.stop)
	return m
}

func (m *member) dialJoin(
	ctx context.Context, address string, accept func(memberid.Digest) error,
) (net.Conn, error) {
	conn, err := port.DialJoin(ctx, address, accept)
	if m.dialed != nil {
		m.dialed(address, err)
	}
	return conn, err
}

func (m *member) serve(tasks *sync.WaitGroup) []*grpc.Server {
	fellows := grpc.NewServer(grpc.Creds(port.Credentials()))
	ententev1.RegisterMemberServiceServer(fellows, m.manager.MemberService())
	ententev1.RegisterStoreServiceServer(fellows, m.store.Service(port.MemberFrom))
	joiners := grpc.NewServer(grpc.Creds(port.Credentials()))
	ententev1.RegisterJoinServiceServer(joiners, m.manager.JoinService())
	clients := grpc.NewServer(grpc.Creds(port.Credentials()))
	ententev1.RegisterClusterServiceServer(clients, m.manager.ClusterService())
	for s, p := range map[*grpc.Server]port.Protocol{fellows: port.Member, joiners: port.Join, clients: port.GRPC} {
		tasks.Go(func() { _ = s.Serve(m.port.Listener(p)) }) // it ends with the port
	}
	return []*grpc.Server{fellows, joiners, clients}
}

// form starts the member, which forms a cluster alone.
func (m *member) form() *member {
	m.t.Helper()
	m.start()
	require.NoError(m.t, m.store.Bootstrap())
	m.eventually("has a row", func() error { return m.hasRow(m.id) })
	return m
}

// token makes a token for a member ID, which needs no approval.
func (m *member) token(id string, ttl time.Duration) join.Token {
	m.t.Helper()
	token, err := m.createToken(&ententev1.CreateJoinTokenRequest{
		MemberId: id, Ttl: durationOf(ttl), AutoApprove: true,
	})
	require.NoError(m.t, err)
	return token
}

func (m *member) createToken(request *ententev1.CreateJoinTokenRequest) (join.Token, error) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), waitLimit)
	defer cancel()
	answer, err := m.manager.ClusterService().CreateJoinToken(ctx, request)
	if err != nil {
		return join.Token{}, err
	}
	return join.ParseToken(answer.GetToken())
}

// enter joins the cluster of the members at the addresses.
func (m *member) enter(token join.Token, addresses ...string) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), waitLimit)
	defer cancel()
	_, err := join.Enter(ctx, m.entry(token, addresses...))
	return err
}

func (m *member) entry(token join.Token, addresses ...string) join.Entry {
	return join.Entry{
		Token: token, Addresses: addresses, Identity: m.identity, Directory: m.directory,
		Self: memberid.Self{ID: m.id, Region: "eu-west-1", Zone: "eu-west-1b", Address: m.address,
			Version: "test", Identity: m.identity.Digest},
		ClusterName: clusterName, HomeTrustDomain: homeDomain,
		Dialer: join.Dialer{Dial: port.DialJoin, Credentials: port.Credentials()},
		Logger: hclog.NewNullLogger(),
	}
}

// joined starts the member, joins the cluster of another one, and waits for its vote.
func (m *member) joined(with *member) *member {
	m.t.Helper()
	m.start()
	require.NoError(m.t, m.enter(with.token(m.id, time.Minute), with.address))
	m.eventually("has a vote", func() error {
		for _, s := range m.store.Servers().List() {
			if s.MemberID == m.id && s.Voter {
				return nil
			}
		}
		return fmt.Errorf("%+v", m.store.Servers().List())
	})
	return m
}

// hold makes the member probe addresses by p, which forwards to the port.
func (m *member) hold(p *waitingProber) {
	p.Prober = m.port
	m.prober.use(p)
}

func (m *member) hasRow(id string) error {
	_, found, err := membership.Members.Get(m.store.View(), id)
	if err == nil && !found {
		err = fmt.Errorf("no row of %s", id)
	}
	return err
}

func (m *member) eventually(what string, holds func() error) {
	m.t.Helper()
	var last error
	deadline := time.NewTimer(waitLimit)
	defer deadline.Stop()
	look := time.NewTicker(glance)
	defer look.Stop()
	for {
		if last = holds(); last == nil {
			return
		}
		select {
		case <-look.C:
		case <-deadline.C:
			m.t.Fatalf("member %s never %s: %v", m.id, what, last)
		}
	}
}

// write commits a change, and returns its revision. It goes through elections, which happen on a busy machine: the new
// token replaces the one before, so that the write is safe to repeat.
func (m *member) write() (at raftstore.Revision) {
	m.t.Helper()
	m.eventually("wrote", func() error {
		answer, err := m.manager.ClusterService().CreateJoinToken(m.t.Context(),
			&ententev1.CreateJoinTokenRequest{MemberId: "spare"})
		at = raftstore.Revision(answer.GetRevision())
		return err
	})
	return at
}

func (m *member) reached(r raftstore.Revision) func() error {
	return func() error {
		if v := m.store.View().Revision(); v < r {
			return fmt.Errorf("it is at revision %d, not %d", v, r)
		}
		return nil
	}
}
