package join

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// Dialer connects to members under entente-join/1, which a caller without a membership can do too.
type Dialer struct {
	// Dial opens a connection, and closes it before anything is sent if accept refuses the identity key of the other
	// end.
	Dial func(ctx context.Context, address string, accept func(memberid.Digest) error) (net.Conn, error)
	// Credentials are gRPC's for a connection that Dial has made.
	Credentials credentials.TransportCredentials
}

// Call runs fn with the JoinService at an address, over a connection of its own. It returns the error of accept
// unchanged, in which case nothing was sent.
func (d Dialer) Call(
	ctx context.Context, address string, accept func(memberid.Digest) error,
	fn func(ententev1.JoinServiceClient) error,
) error {
	var refusal error
	conn, err := d.Dial(ctx, address, func(presented memberid.Digest) error {
		refusal = accept(presented)
		return refusal
	})
	if refusal != nil {
		return refusal
	}
	if err != nil {
		return err
	}
	defer conn.Close() // gRPC closes it, unless it never used it
	// gRPC receives this one connection, whose other end was verified, and no other after it.
	once := make(chan net.Conn, 1)
	once <- conn
	client, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(d.Credentials),
		grpc.WithNoProxy(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection was closed")
			}
		}))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // it is not used any more
	return fn(ententev1.NewJoinServiceClient(client))
}
