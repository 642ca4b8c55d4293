package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// region is one cluster: three members in three zones.
type region struct {
	name    string
	domain  spiffeid.TrustDomain
	members []*member
	// conn reaches the cluster through the admin sockets of all its members, whichever of them run.
	conn *client.Client
}

func newRegion(name string, domain spiffeid.TrustDomain, dir, executable string) (*region, error) {
	r := &region{name: name, domain: domain}
	var sockets []string
	for n := 1; n <= 3; n++ {
		m := &member{
			id:         fmt.Sprintf("%s-%d", name, n),
			region:     r,
			zone:       string(rune('a' + n - 1)),
			executable: executable,
		}
		m.dir = filepath.Join(dir, m.id)
		r.members = append(r.members, m)
		var err error
		if m.conn, err = connect(m.socket()); err != nil {
			return r, err
		}
		if err := m.reserve(); err != nil {
			return r, err
		}
		sockets = append(sockets, m.socket())
	}
	conn, err := connect(sockets...)
	r.conn = conn
	return r, err
}

// anyMember balances calls over the members that run, and repeats a call at another member when one is lost. All calls
// of the demo can be repeated.
const anyMember = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"methodConfig": [{
		"name": [{}],
		"waitForReady": true,
		"retryPolicy": {
			"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]
		}
	}]
}`

// connect returns a client of the members behind admin sockets. With one socket, calls fail while the member is down.
func connect(sockets ...string) (*client.Client, error) {
	quick := backoff.DefaultConfig
	quick.BaseDelay, quick.MaxDelay = 50*time.Millisecond, 500*time.Millisecond
	options := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: time.Second}),
	}
	if len(sockets) > 1 {
		options = append(options, grpc.WithDefaultServiceConfig(anyMember))
	}
	return client.New(context.Background(), client.WithAdminSocket(sockets...), client.WithDialOptions(options...))
}

// reserve chooses the member's ports.
func (m *member) reserve() (err error) {
	if m.api, err = m.reserved.take(); err != nil {
		return err
	}
	if m.endpoint, err = m.reserved.take(); err != nil {
		return err
	}
	m.operations, err = m.reserved.take()
	return err
}

// close closes the connections. The members have been stopped.
func (r *region) close() {
	for _, m := range r.members {
		m.reserved.release()
		if m.conn != nil {
			_ = m.conn.Close()
		}
	}
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

// form starts the first member, and joins the others by tokens.
func (r *region) form(ctx context.Context) error {
	first := r.members[0]
	if err := r.begin(ctx, first, "leads its cluster", func() error {
		if err := first.configure(nil, ""); err != nil {
			return err
		}
		return first.start("--bootstrap")
	}, func(ctx context.Context) (bool, error) {
		known, err := first.members(ctx)
		return len(known.GetMembers()) == 1, err
	}); err != nil {
		return err
	}
	joining, joinCtx := errgroup.WithContext(ctx)
	for _, m := range r.members[1:] {
		joining.Go(func() error {
			return r.begin(joinCtx, m, "has joined", func() error {
				token, err := first.conn.Cluster().CreateJoinToken(joinCtx, &ententev1.CreateJoinTokenRequest{
					MemberId: m.id, AutoApprove: true,
				})
				if err != nil {
					return fmt.Errorf("make a join token for %s: %w", m.id, err)
				}
				if err := m.configure(first, token.GetToken()); err != nil {
					return err
				}
				return m.start()
			}, func(ctx context.Context) (bool, error) {
				known, err := m.members(ctx)
				return len(known.GetMembers()) > 1, err
			})
		})
	}
	if err := joining.Wait(); err != nil {
		return err
	}
	return r.awaitMembers(ctx, 3)
}

// startTries is how often a member that ends at once is started: another process may use one of its ports.
const startTries = 3

// begin starts a member and waits until it is up. If it ends before, it is started again, with other ports.
func (r *region) begin(
	ctx context.Context, m *member, what string, start func() error, holds func(context.Context) (bool, error),
) error {
	for try := 1; ; try++ {
		if err := start(); err != nil {
			return err
		}
		err := m.await(ctx, what, holds)
		if try == startTries || !errors.Is(err, errEnded) {
			return err
		}
		if err := m.startOver(); err != nil {
			return err
		}
	}
}

// awaitMembers waits until that many members are voters and alive, with a leader among them.
func (r *region) awaitMembers(ctx context.Context, n int) error {
	alive := 0
	err := poll(ctx, nil, func(ctx context.Context) (bool, error) {
		known, err := r.conn.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
		leads := false
		alive = 0
		for _, k := range known.GetMembers() {
			if k.GetVoter() && k.GetAlive() {
				alive++
			}
			leads = leads || k.GetLeader()
		}
		return alive == n && leads, err
	})
	if err != nil {
		return fmt.Errorf("wait until %d members of %s are alive (%d are): %w", n, r.name, alive, err)
	}
	return nil
}

// leader returns the member that leads.
func (r *region) leader(ctx context.Context) (*member, error) {
	known, err := r.conn.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
	if err != nil {
		return nil, fmt.Errorf("find the leader of %s: %w", r.name, err)
	}
	for _, k := range known.GetMembers() {
		for _, m := range r.members {
			if k.GetLeader() && k.GetId() == m.id {
				return m, nil
			}
		}
	}
	return nil, fmt.Errorf("%s has no leader", r.name)
}

// others returns the members but one.
func (r *region) others(m *member) []*member {
	var list []*member
	for _, o := range r.members {
		if o != m {
			list = append(list, o)
		}
	}
	return list
}

// endpointID returns the SPIFFE ID of the bundle endpoints of the region.
func (r *region) endpointID() spiffeid.ID {
	return spiffeid.RequireFromPath(r.domain, "/entente/bundle-endpoint")
}
