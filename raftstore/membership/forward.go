package membership

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	// leaderWait bounds how long a call waits for a leader: an election that fails once.
	leaderWait  = 10 * time.Second
	leaderRetry = 100 * time.Millisecond
)

// leaderClient forwards calls to the leader.
type leaderClient struct {
	store *raftstore.Store
	conns Conns
	self  string
}

// leader returns the ID of the leader and its MemberService, which is nil if this member leads.
func (c *leaderClient) leader() (string, ententev1.MemberServiceClient, error) {
	leader, ok := c.store.Leader()
	if !ok {
		return "", nil, raftstore.ErrNoLeader
	}
	if leader.MemberID == c.self {
		return c.self, nil, nil
	}
	conn, err := c.conns.Conn(leader.MemberID)
	if err != nil {
		return "", nil, fmt.Errorf("reach the leader: %w: %w", raftstore.ErrNoLeader, err)
	}
	return leader.MemberID, ententev1.NewMemberServiceClient(conn), nil
}

// forward runs a call on the leader: local if this member leads, otherwise remote. While there is no leader, or it
// changes meanwhile, it tries again until the wait is over, so that the call must be safe to repeat. It returns the
// number of attempts.
func (c *leaderClient) forward(
	ctx context.Context, local func(context.Context) error,
	remote func(context.Context, ententev1.MemberServiceClient) error,
) (attempts int, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	retry := time.NewTicker(leaderRetry)
	defer retry.Stop()
	for {
		attempts++
		var client ententev1.MemberServiceClient
		if _, client, err = c.leader(); err == nil {
			if client == nil {
				err = local(ctx)
			} else {
				err = remote(ctx, client)
			}
		}
		if !transient(err) {
			return attempts, err
		}
		select {
		case <-ctx.Done():
			return attempts, err
		case <-retry.C:
		}
	}
}

// transient reports whether an error may disappear once there is a leader again.
func transient(err error) bool {
	return errors.Is(err, raftstore.ErrNoLeader) || errors.Is(err, raftstore.ErrNotLeader) ||
		status.Code(err) == codes.Unavailable
}
