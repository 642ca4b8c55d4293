package federation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// firstDial and lastDial bound the wait between two attempts.
	firstDial = 200 * time.Millisecond
	lastDial  = 30 * time.Second
	// settled is how long a stream has to have been open for the next dial to begin as if it were the first.
	settled = 5 * time.Second
	// peerWindow is what a peer may have under way unread on a stream that this member dialed; of itself gRPC lets that grow to 16 MiB.
	peerWindow = 256 << 10
	// yieldCheck is how often a member that gives way looks whether it still has to.
	yieldCheck = time.Second
)

// dialer opens the stream to one peer again and again, while it is this member's to open.
type dialer struct {
	peers  *peers
	home   string
	cancel context.CancelFunc
	// first is when it may begin: thousands of a member that died are not dialed all at once.
	first time.Time
	// worked is the address that answered last, end why the last stream ended or did not come about.
	worked, end string
}

// inOrder are the reasons, besides [goodbyes], for which the stream of a peer in good order ends, or does not come about.
var inOrder = []string{unreachable, "lost", "silent", "stalled", "unacknowledged", "lagging"}

// unreachable is why a stream did not come about, where there was nobody to say why.
const unreachable = "unreachable"

// beginsAnew is the rule of whether the next dial is made as soon as the first, after a stream that was open for some time: not where the
// peer did not keep to the protocol, however long it took to be found out.
func beginsAnew(lived time.Duration, end string) bool {
	return lived > settled && (slices.Contains(session.OrderlyReasons, end) || slices.Contains(inOrder, end))
}

// dialLocked begins. p.mu is held.
func (p *peers) dialLocked(ctx context.Context, home string) *dialer {
	ctx, cancel := context.WithCancel(ctx)
	d := &dialer{peers: p, home: home, cancel: cancel, first: p.dialing.After(p.manager.now())}
	p.work.Go(func() { d.run(ctx) })
	return d
}

func (d *dialer) run(ctx context.Context) {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval, retry.RandomizationFactor = firstDial, lastDial, 0.5
	wait := d.first.Sub(d.peers.manager.now())
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = yieldCheck
		if !d.peers.yields(d.home) {
			began := d.peers.manager.now()
			d.end = unreachable
			d.once(ctx)
			if beginsAnew(d.peers.manager.now().Sub(began), d.end) {
				retry.Reset()
			}
			wait = retry.NextBackOff()
		}
	}
}

// once opens the stream at the first address that answers, and runs it to its end.
func (d *dialer) once(ctx context.Context) {
	td, err := spiffeid.TrustDomainFromString(d.home)
	if err != nil {
		return // it was parsed with the relationship
	}
	var failures []error
	for _, address := range d.addresses() {
		if err = d.over(ctx, address, td); err == nil {
			return // it was a stream, whose end is written down
		}
		failures = append(failures, err)
	}
	if err := errors.Join(failures...); err != nil && ctx.Err() == nil {
		text := relationship.Clip(strings.ReplaceAll(err.Error(), "\n", "; "))
		reason := unreachable
		if e, ok := errors.AsType[*session.Error](err); ok {
			reason = e.Reason
		}
		d.peers.manager.metrics.streamsEnded.WithLabelValues(reason).Inc()
		d.peers.manager.log.Warn("no stream to a peer; its bundles are fetched", "peer", d.home, "result", reason, "error", text)
		d.peers.reports.ended(d.home, "", true, reason, text)
	}
}

// addresses are those of the plan, the one that worked last first.
func (d *dialer) addresses() []string {
	d.peers.mu.Lock()
	defer d.peers.mu.Unlock()
	planned := d.peers.plans[d.home].Addresses
	out := make([]string, 0, len(planned))
	for _, address := range planned {
		if address == d.worked {
			out = append([]string{address}, out...)
		} else {
			out = append(out, address)
		}
	}
	return out
}

// opened is a stream that a member of the peer has taken.
type opened struct {
	wire wire
	// remote is the ID of that member.
	remote string
	// hangUp ends the call, and the connection with it.
	hangUp func()
}

// over opens the stream at an address, and runs it to its end. It returns an error if there was no stream.
func (d *dialer) over(ctx context.Context, address string, home spiffeid.TrustDomain) error {
	o, err := d.peers.open(ctx, address, home)
	if err != nil {
		return err
	}
	defer o.hangUp()
	d.worked = address
	m := d.peers.manager
	// What ends it is said to the peer, and the end of this member's dialing says nothing.
	s := newStream(context.WithoutCancel(ctx), d.peers, session.New(d.peers.config.Home.Name(), m.member, d.home, o.remote, true, m.now()), o.wire)
	if err := d.peers.join(s); err != nil {
		return err
	}
	d.end = session.ReasonOf(d.peers.keep(s))
	return nil
}

// call opens a stream over a connection of its own, by gRPC.
func (p *peers) call(ctx context.Context, address string, home spiffeid.TrustDomain) (opened, error) {
	raw, err := p.config.Dial(ctx, address, home)
	if err != nil {
		return opened{}, err
	}
	// A stream that is over has a second to say why, which the end of this context must not cut short.
	calling, endCall := context.WithCancel(context.WithoutCancel(ctx))
	conn, err := newPeerConn(address, raw, p.config.Credentials, grpc.MaxCallSendMsgSize(session.MaxMessage))
	if err != nil {
		endCall()
		_ = raw.Close() // not used
		return opened{}, fmt.Errorf("prepare the stream to %s at %s: %w", home.Name(), address, err)
	}
	hangUp := func() {
		endCall()
		_ = conn.Close() // the stream is over
		_ = raw.Close()  // where gRPC never took it
	}
	opening := time.AfterFunc(session.HelloTimeout, endCall)
	call, err := ententev1.NewPeerServiceClient(conn).Exchange(calling)
	if !opening.Stop() && err == nil {
		err = session.Errorf("silent", "the peer did not take the stream within %s", session.HelloTimeout)
	}
	if err != nil {
		hangUp()
		return opened{}, fmt.Errorf("open the stream to %s at %s: %w", home.Name(), address, lost(err))
	}
	remote, err := answers(call, home.Name())
	if err != nil {
		hangUp()
		return opened{}, err
	}
	return opened{&callerWire{call}, remote, hangUp}, nil
}

// newPeerConn has gRPC use a connection that is there already, and no other.
func newPeerConn(address string, raw net.Conn, creds credentials.TransportCredentials, options ...grpc.CallOption) (*grpc.ClientConn, error) {
	once := make(chan net.Conn, 1)
	once <- raw
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection has ended")
			}
		}),
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(append(options, grpc.MaxCallRecvMsgSize(session.MaxMessage))...),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10), grpc.WithMaxHeaderListSize(16<<10),
		grpc.WithInitialWindowSize(peerWindow), grpc.WithInitialConnWindowSize(peerWindow),
	)
}

// answers says which member of the peer is at the other end.
func answers(call ententev1.PeerService_ExchangeClient, home string) (string, error) {
	if p, ok := grpcpeer.FromContext(call.Context()); ok {
		if who, ok := p.AuthInfo.(access.Identified); ok {
			return memberOf(who.AccessCaller(), home)
		}
	}
	return "", session.Errorf("identity_mismatch", "the other end of the stream did not prove who it is")
}

// memberOf is the member ID of a caller that is a member of the cluster with that home trust domain; empty: of any.
func memberOf(c access.Caller, home string) (string, error) {
	id, ok := c.SPIFFEID()
	if !ok {
		return "", session.Errorf("identity_mismatch", "only members of another cluster open streams, and this is %s", c)
	}
	member, ok := strings.CutPrefix(id.Path(), access.MemberPath)
	if !ok || member == "" || strings.Contains(member, "/") || home != "" && id.TrustDomain().Name() != home {
		return "", session.Errorf("identity_mismatch", "%s is no member of a peer's cluster: spiffe://HOME%sID is", id, access.MemberPath)
	}
	return member, nil
}

// callerWire is the end of the side that opened the stream.
type callerWire struct {
	call ententev1.PeerService_ExchangeClient
}

func (w *callerWire) send(m *ententev1.PeerMessage) error {
	return w.call.Send(&ententev1.ExchangeRequest{Message: m})
}

func (w *callerWire) recv() (*ententev1.PeerMessage, error) {
	m, err := w.call.Recv()
	return m.GetMessage(), err
}

func (w *callerWire) finish() { _ = w.call.CloseSend() } // it never fails
