package membership

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
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
// number of attempts. If one of them may have been executed and none was answered, the error is
// [raftstore.ErrUnknownOutcome].
func (c *leaderClient) forward(
	ctx context.Context, local func(context.Context) error,
	remote func(context.Context, ententev1.MemberServiceClient) error,
) (attempts int, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	retry := time.NewTicker(leaderRetry)
	defer retry.Stop()
	open := false // an attempt may have been executed
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
		open = open || unclear(err)
		if !unclear(err) && !transient(err) {
			return attempts, err
		}
		select {
		case <-ctx.Done():
			if open && !errors.Is(err, raftstore.ErrUnknownOutcome) {
				err = fmt.Errorf("%w: %w", raftstore.ErrUnknownOutcome, err)
			}
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

// unclear reports whether the call may have been executed in spite of its error: the leader reports that, or did not
// answer.
func unclear(err error) bool {
	if errors.Is(err, raftstore.ErrUnknownOutcome) {
		return true
	}
	s, ok := status.FromError(err)
	if !ok {
		return false
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded:
		return true
	case codes.Unknown:
		return apierror.Reason(s) == apierror.UnknownOutcome
	case codes.Unavailable:
		return apierror.Reason(s) != apierror.NoLeader
	default:
		return false
	}
}
