package port

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// A fellow member that stopped is tried again soon: it may be back within a second, and calls to it decide
// how long a change of leader takes. Keepalives find a connection that died without a word.
var (
	memberBackoff = grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: maxDial,
	}
	memberKeepalive = keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}
)

// Conn returns the gRPC connection to a fellow member under entente-member/1. It is shared and kept,
// connects when it is first used and again after it broke, each time to the address and the identity key
// that the membership names then. The port closes it when the member is removed.
func (p *Port) Conn(memberID string) (grpc.ClientConnInterface, error) {
	if _, _, known := p.members.Locate(memberID); !known {
		return nil, fmt.Errorf("member %s: %w", memberID, ErrNotAMember)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil, fmt.Errorf("connect to member %s: this member is stopping: %w", memberID, net.ErrClosed)
	}
	if c := p.clients[memberID]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+memberID,
		grpc.WithTransportCredentials(Credentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			address, identity, known := p.members.Locate(memberID)
			if !known {
				return nil, fmt.Errorf("member %s: %w", memberID, ErrNotAMember)
			}
			return p.dial(ctx, Member, address, memberID, identity)
		}),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(memberBackoff),
		grpc.WithKeepaliveParams(memberKeepalive),
	)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to member %s: %w", memberID, err)
	}
	p.clients[memberID] = c
	return c, nil
}

// forgetStrangers closes the gRPC connections to those who are members no more.
func (p *Port) forgetStrangers() {
	p.mu.Lock()
	var gone []*grpc.ClientConn
	for id, c := range p.clients {
		if _, _, known := p.members.Locate(id); !known {
			gone = append(gone, c)
			delete(p.clients, id)
		}
	}
	p.mu.Unlock()
	for _, c := range gone {
		_ = c.Close() // to a member that was removed
	}
}
