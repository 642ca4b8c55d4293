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

// Connections to a stopped member are retried soon: it may be back within a second, and a change of leader waits for
// calls to it. Keepalives detect a connection that died silently.
var (
	memberBackoff = grpc.ConnectParams{
		Backoff: backoff.Config{
			BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second,
		},
		MinConnectTimeout: maxDial,
	}
	memberKeepalive = keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}
)

// Conn returns the gRPC connection to another member under entente-member/1. The connection is shared and kept. It
// connects at its first use and again after a failure, each time to the address and the identity key in the current
// membership. The port closes it when the member is removed.
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
	c, err := grpc.NewClient("passthrough:///"+memberID, append([]grpc.DialOption{
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
	}, p.dialOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to member %s: %w", memberID, err)
	}
	p.clients[memberID] = c
	return c, nil
}

// closeRemovedMembers closes the gRPC connections to removed members.
func (p *Port) closeRemovedMembers() {
	p.places.forget(func(id string) bool { _, _, known := p.members.Locate(id); return known })
	p.mu.Lock()
	var removed []*grpc.ClientConn
	for id, c := range p.clients {
		if _, _, known := p.members.Locate(id); !known {
			removed = append(removed, c)
			delete(p.clients, id)
		}
	}
	p.mu.Unlock()
	for _, c := range removed {
		_ = c.Close() // the member is gone
	}
}
