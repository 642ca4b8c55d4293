package raftstoretest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// network connects the members of a cluster in memory, and can be partitioned. The IDs of members
// are also their addresses.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	services  map[string]ententev1.StoreServiceServer
	// side is the side of a partition that a member is on; without a partition all are on side 0.
	side map[string]int
	// links are the open connections and calls, each with a function that ends it.
	links map[*link]struct{}
	// held holds back messages, by the member that they are for.
	held map[string]*Held
	// lost is how many answers of StoreService are still to be lost.
	lost int
}

type link struct {
	from, to string
	cut      func()
}

func newNetwork() *network {
	return &network{
		listeners: map[string]*listener{}, services: map[string]ententev1.StoreServiceServer{},
		side: map[string]int{}, links: map[*link]struct{}{}, held: map[string]*Held{},
	}
}

// listener is one member's raft.StreamLayer.
type listener struct {
	network  *network
	member   string
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

var _ raft.StreamLayer = (*listener)(nil)

func (n *network) listen(member string) *listener {
	l := &listener{network: n, member: member, incoming: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[member] = l
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return address(l.member) }

type address string

func (address) Network() string  { return "memory" }
func (a address) String() string { return string(a) }

// Dial implements raft.StreamLayer.
func (l *listener) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	n := l.network
	here, there := net.Pipe()
	remote, link, err := n.connect(l.member, string(to), func() { here.Close(); there.Close() })
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case remote.incoming <- &linked{Conn: there, end: func() {}, received: func() { n.holding(string(to)).request() }}:
		return &linked{
			Conn: here, end: func() { n.forget(link) }, received: func() { n.holding(l.member).answer(string(to)) },
		}, nil
	case <-remote.closed:
		err = net.ErrClosed
	case <-timer.C:
		err = context.DeadlineExceeded
	}
	n.forget(link)
	return nil, fmt.Errorf("dial %s: %w", to, errors.Join(err, here.Close(), there.Close()))
}

// linked is a connection that is removed from the network when it is closed.
type linked struct {
	net.Conn
	end func()
	// received is called with each message that has arrived.
	received func()
}

func (l *linked) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	l.received()
	return n, err
}

func (l *linked) Close() error {
	l.end()
	return l.Conn.Close()
}

// connect creates a link to a member that can be reached.
func (n *network) connect(from, to string, cut func()) (*listener, *link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	remote, ok := n.listeners[to]
	if !ok || n.side[from] != n.side[to] {
		return nil, nil, fmt.Errorf("dial %s: cannot be reached", to)
	}
	l := &link{from: from, to: to, cut: cut}
	n.links[l] = struct{}{}
	return remote, l, nil
}

func (n *network) forget(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.links, l)
}

// cut sets the sides, and ends the links between them.
func (n *network) cut(side map[string]int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.side = side
	n.sever(func(l *link) bool { return side[l.from] != side[l.to] })
}

// remove removes a member from the network.
func (n *network) remove(member string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listeners, member)
	delete(n.services, member)
	n.sever(func(l *link) bool { return l.from == member || l.to == member })
}

func (n *network) sever(which func(*link) bool) {
	for l := range n.links {
		if which(l) {
			l.cut()
			delete(n.links, l)
		}
	}
}

func (n *network) serve(s *raftstore.Store) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.services[s.MemberID()] = s.Service(callerFrom)
}

// callerKey is the key of the context value that names the member that calls.
type callerKey struct{}

func callerFrom(ctx context.Context) (string, bool) {
	member, ok := ctx.Value(callerKey{}).(string)
	return member, ok
}

// caller is one member's connection to another's StoreService.
type caller struct {
	network  *network
	from, to string
}

var _ grpc.ClientConnInterface = caller{}

// Invoke implements grpc.ClientConnInterface.
func (c caller) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, callerKey{}, c.from))
	defer cancel()
	_, link, err := c.network.connect(c.from, c.to, cancel)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer c.network.forget(link)
	c.network.mu.Lock()
	service := c.network.services[c.to]
	c.network.mu.Unlock()
	if service == nil {
		return status.Errorf(codes.Unavailable, "member %s is not up", c.to)
	}
	var answer proto.Message
	switch method {
	case ententev1.StoreService_Propose_FullMethodName:
		answer, err = service.Propose(ctx, proto.CloneOf(args.(*ententev1.ProposeRequest)))
	case ententev1.StoreService_ReadIndex_FullMethodName:
		answer, err = service.ReadIndex(ctx, proto.CloneOf(args.(*ententev1.ReadIndexRequest)))
	default:
		return status.Errorf(codes.Unimplemented, "method %s", method)
	}
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case err != nil:
		return err
	case c.network.loses():
		return status.Error(codes.Unavailable, "the connection broke before the answer arrived")
	}
	proto.Reset(reply.(proto.Message))
	proto.Merge(reply.(proto.Message), answer)
	return nil
}

func (n *network) loses() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost == 0 {
		return false
	}
	n.lost--
	return true
}

// NewStream implements grpc.ClientConnInterface.
func (c caller) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "StoreService has no streams")
}
