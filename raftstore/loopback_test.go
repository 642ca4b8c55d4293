package raftstore_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// loopback connects the members of a cluster over real sockets, in one process or in several: Unix
// sockets in a folder that all of them know.
type loopback struct{ dir string }

// newLoopback makes that folder outside of the test's own, whose name may be too long for a socket.
func newLoopback(t testing.TB) *loopback {
	t.Helper()
	dir, err := os.MkdirTemp("", "raftstore")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return &loopback{dir: dir}
}

func (l *loopback) raftAddress(member string) string { return filepath.Join(l.dir, member+".raft") }
func (l *loopback) callAddress(member string) string { return filepath.Join(l.dir, member+".call") }
func (l *loopback) dataDir(member string) string     { return filepath.Join(l.dir, member) }

func identityOf(member string) [32]byte { return sha256.Sum256([]byte(member)) }

func (l *loopback) server(member string) raftstore.Server {
	return raftstore.Server{MemberID: member, Identity: identityOf(member), Address: l.raftAddress(member)}
}

// listen replaces a socket that a killed process left behind.
func listen(address string) (net.Listener, error) {
	if err := os.Remove(address); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return net.Listen("unix", address)
}

// open starts a member from its data folder; close ends it, unless its process is killed before.
func (l *loopback) open(
	member string,
	configure ...func(*raftstore.Config),
) (s *raftstore.Store, close func() error, err error) {
	stream, err := newUnixStream(l.raftAddress(member))
	if err != nil {
		return nil, nil, err
	}
	calls, err := listen(l.callAddress(member))
	if err != nil {
		return nil, nil, err
	}
	peers := &peers{loopback: l, member: member, conns: map[string]*grpc.ClientConn{}}
	config := raftstore.Config{
		MemberID: member, Identity: identityOf(member), Address: l.raftAddress(member), Dir: l.dataDir(member),
		Stream: stream, Dial: peers.dial,
		Timing: raftstore.Timing{
			Heartbeat: 250 * time.Millisecond, Election: 250 * time.Millisecond, Lease: 250 * time.Millisecond,
			LeaderWait: 5 * time.Second,
		},
	}
	for _, f := range configure {
		f(&config)
	}
	if s, err = raftstore.Open(config); err != nil {
		return nil, nil, err
	}
	server := grpc.NewServer()
	ententev1.RegisterStoreServiceServer(server, s.Service(callerFrom))
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(calls) }) // ends with the server
	return s, func() error {
		err := s.Close()
		server.Stop()
		serving.Wait()
		peers.close()
		return err
	}, nil
}

// peers are the connections to the StoreService of other members.
type peers struct {
	loopback *loopback
	member   string
	mu       sync.Mutex
	conns    map[string]*grpc.ClientConn
}

// callerHeader names the member that calls. The sockets have no other proof of it.
const callerHeader = "member"

func callerFrom(ctx context.Context) (string, bool) {
	names := metadata.ValueFromIncomingContext(ctx, callerHeader)
	return strings.Join(names, " "), len(names) == 1
}

func (p *peers) dial(member string) (grpc.ClientConnInterface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if conn, ok := p.conns[member]; ok {
		return conn, nil
	}
	// Only this user can access the folder of the sockets.
	conn, err := grpc.NewClient(
		"unix://"+p.loopback.callAddress(member),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(
			ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
			options ...grpc.CallOption,
		) error {
			return invoke(metadata.AppendToOutgoingContext(ctx, callerHeader, p.member), method, request, reply, conn,
				options...)
		}),
	)
	if err != nil {
		return nil, err
	}
	p.conns[member] = conn
	return conn, nil
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		conn.Close()
	}
}

// unixStream is a raft.StreamLayer over Unix sockets.
type unixStream struct{ net.Listener }

func newUnixStream(address string) (unixStream, error) {
	l, err := listen(address)
	return unixStream{l}, err
}

func (unixStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("unix", string(address), timeout)
}

// form opens members and makes a cluster of them, led by the first.
func (l *loopback) form(t testing.TB, members []string, configure ...func(*raftstore.Config)) []*raftstore.Store {
	t.Helper()
	var stores []*raftstore.Store
	for _, member := range members {
		s, stop, err := l.open(member, configure...)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, stop()) })
		stores = append(stores, s)
	}
	require.NoError(t, stores[0].Bootstrap())
	awaitLeadership(t.Context(), t, stores[0])
	for i, member := range members[1:] {
		l.addVoter(t, stores[:i+2], member)
	}
	return stores
}

// addVoter adds a member to the cluster. On a busy machine leadership may be lost meanwhile.
func (l *loopback) addVoter(t testing.TB, stores []*raftstore.Store, member string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	err := raftstore.ErrNotLeader
	for errors.Is(err, raftstore.ErrNotLeader) || errors.Is(err, raftstore.ErrUnknownOutcome) && ctx.Err() == nil {
		err = stores[leaderOf(t, stores)].Servers().AddVoter(ctx, l.server(member))
	}
	require.NoError(t, err)
}

func awaitLeadership(ctx context.Context, t testing.TB, s *raftstore.Store) {
	t.Helper()
	leading, stop := context.WithCancel(ctx)
	defer stop()
	_ = s.WhileLeading(leading, func(context.Context) { stop() })
	require.NoError(t, ctx.Err(), "member %s does not come to lead", s.MemberID())
}
