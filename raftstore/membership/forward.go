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
	// leaderWait bounds how long a call waits for a leader to take it: an election that goes wrong once.
	leaderWait  = 10 * time.Second
	leaderRetry = 100 * time.Millisecond
)

// onLeader has the leader do something, here or there. While there is none, or it changes under way, it tries
// again until the wait is over; so what is asked for must be safe to ask for twice. It reports how often it
// tried.
func (m *Manager) onLeader(ctx context.Context, here func(context.Context) error, there func(context.Context, ententev1.MemberServiceClient) error) (tries int, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	retry := time.NewTicker(leaderRetry)
	defer retry.Stop()
	for {
		tries++
		err = m.onLeaderOnce(ctx, here, there)
		if !passing(err) {
			return tries, err
		}
		select {
		case <-ctx.Done():
			return tries, err
		case <-retry.C:
		}
	}
}

func (m *Manager) onLeaderOnce(ctx context.Context, here func(context.Context) error, there func(context.Context, ententev1.MemberServiceClient) error) error {
	leader, ok := m.Store.Leader()
	if !ok {
		return raftstore.ErrNoLeader
	}
	if leader.MemberID == m.Self.ID {
		return here(ctx)
	}
	conn, err := m.Conns.Conn(leader.MemberID)
	if err != nil {
		return fmt.Errorf("reach the leader: %w: %w", raftstore.ErrNoLeader, err)
	}
	return there(ctx, ententev1.NewMemberServiceClient(conn))
}

// passing reports whether an error may be over when there is a leader again.
func passing(err error) bool {
	return errors.Is(err, raftstore.ErrNoLeader) || errors.Is(err, raftstore.ErrNotLeader) || status.Code(err) == codes.Unavailable
}
