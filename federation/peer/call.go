package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/egress"
)

// callWindow is how much a peer may have in transit, unread, on a stream that this member opened. By default, gRPC lets
// it grow to 16 MiB.
const callWindow = 256 << 10

// openCall opens a stream as a gRPC call over a connection of its own.
func (t Transport) openCall(
	ctx context.Context, route egress.Route, address string, home spiffeid.TrustDomain,
) (Opened, error) {
	raw, err := t.Dial(ctx, route, address, home)
	if err != nil {
		return Opened{}, err
	}
	// The end of ctx must not cut off the time in which the peer is sent the reason for the stream's end.
	calling, endCall := context.WithCancel(context.WithoutCancel(ctx))
	conn, err := NewConn(address, raw, t.Credentials, grpc.MaxCallSendMsgSize(session.MaxMessage))
	if err != nil {
		endCall()
		_ = raw.Close() // not used
		return Opened{}, fmt.Errorf("prepare the stream to %s at %s: %w", home.Name(), address, err)
	}
	hangUp := func() {
		endCall()
		_ = conn.Close() // the stream is over
		_ = raw.Close()  // if gRPC has not taken it
	}
	opening := time.AfterFunc(session.HelloTimeout, endCall)
	call, err := ententev1.NewPeerServiceClient(conn).Exchange(calling)
	if !opening.Stop() && err == nil {
		err = session.Errorf("silent", "the peer did not take the stream within %s", session.HelloTimeout)
	}
	if err != nil {
		hangUp()
		return Opened{}, fmt.Errorf("open the stream to %s at %s: %w", home.Name(), address, lost(err))
	}
	remote, err := calledMember(call, home.Name())
	if err != nil {
		hangUp()
		return Opened{}, err
	}
	return Opened{Wire: &clientWire{call}, Remote: remote, HangUp: hangUp}, nil
}

// NewConn returns a gRPC client that uses an existing connection, and no other.
func NewConn(
	address string, raw net.Conn, creds credentials.TransportCredentials, options ...grpc.CallOption,
) (*grpc.ClientConn, error) {
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
		grpc.WithInitialWindowSize(callWindow), grpc.WithInitialConnWindowSize(callWindow),
	)
}

// calledMember returns the member of the peer at the other end of a call.
func calledMember(call ententev1.PeerService_ExchangeClient, home string) (string, error) {
	if p, ok := grpcpeer.FromContext(call.Context()); ok {
		if identified, ok := p.AuthInfo.(access.Identified); ok {
			return memberOf(identified.AccessCaller(), home)
		}
	}
	return "", session.Errorf("identity_mismatch", "the other end of the stream did not prove its identity")
}

// memberOf returns the member ID of a caller that is a member of the cluster with the home trust domain, or of any
// cluster if home is empty.
func memberOf(c access.Caller, home string) (string, error) {
	id, ok := c.SPIFFEID()
	if !ok {
		return "", session.Errorf(
			"identity_mismatch",
			"only members of another cluster open streams, and this is %s",
			c,
		)
	}
	member, ok := strings.CutPrefix(id.Path(), grant.MemberPath)
	if !ok || member == "" || strings.Contains(member, "/") || home != "" && id.TrustDomain().Name() != home {
		return "", session.Errorf(
			"identity_mismatch",
			"%s is no member of a peer's cluster: spiffe://HOME%sID is",
			id,
			grant.MemberPath,
		)
	}
	return member, nil
}

// lost converts the error of a broken stream. If the other side refused the stream, its reason is kept; everything else
// is the network's.
func lost(err error) error {
	if errors.Is(err, io.EOF) {
		return &session.Error{Reason: "lost", Text: "the peer ended the stream without a reason", ByPeer: true}
	}
	reason, s := "lost", status.Convert(err)
	if apierror.Reason(s) == apierror.Starting {
		return &session.Error{Reason: starting, Text: relationship.Clip(s.Message()), ByPeer: true}
	}
	switch s.Code() {
	case codes.PermissionDenied, codes.Unauthenticated:
		reason = "refused"
	case codes.ResourceExhausted:
		reason = "message_too_large"
	case codes.Unimplemented:
		reason = "unimplemented"
	case codes.Internal, codes.InvalidArgument:
		reason = "malformed"
	}
	return &session.Error{
		Reason: reason, Text: relationship.Clip(s.Message()),
		ByPeer: reason != "malformed" && reason != "message_too_large",
	}
}

// clientWire is the end of the side that opened the stream.
type clientWire struct {
	call ententev1.PeerService_ExchangeClient
}

func (w *clientWire) Send(m *ententev1.PeerMessage) error {
	return w.call.Send(&ententev1.ExchangeRequest{Message: m})
}

func (w *clientWire) Recv() (*ententev1.PeerMessage, error) {
	m, err := w.call.Recv()
	return m.GetMessage(), err
}

func (w *clientWire) Finish() { _ = w.call.CloseSend() } // it never fails
