package membership

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

func TestUnclear(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{raftstore.ErrNotLeader, false},
		{raftstore.ErrNoLeader, false},
		{fmt.Errorf("remove member b: %w: leadership lost", raftstore.ErrUnknownOutcome), true},
		{errors.New("anything else"), false},
		{raftstore.StatusError(raftstore.ErrUnknownOutcome), true},
		{raftstore.StatusError(raftstore.ErrNotLeader), false},
		{status.Error(codes.Unavailable, "error reading from server: EOF"), true},
		{status.Error(codes.DeadlineExceeded, "late"), true},
		{status.Error(codes.Canceled, "canceled"), true},
		{status.Error(codes.FailedPrecondition, "the cluster would lose its quorum"), false},
		{status.Error(codes.Unknown, "a handler's plain error"), false},
	} {
		assert.Equal(t, c.want, unclear(c.err), "%v", c.err)
	}
}

// What may have been executed by a leader that was lost is repeated on the next, and never reported as not done.
func TestForwardKeepsUnknownOutcome(t *testing.T) {
	store := raftstoretest.New(t)
	c := leaderClient{store: store, self: "member-1"}
	forward := func(ctx context.Context, answers ...error) (int, error) {
		n := 0
		return c.forward(ctx, func(context.Context) error {
			n++
			return answers[min(n, len(answers))-1]
		}, func(context.Context, ententev1.MemberServiceClient) error { return errors.New("not reached") })
	}
	lost := fmt.Errorf("remove member b: %w: leadership lost", raftstore.ErrUnknownOutcome)
	attempts, err := forward(t.Context(), lost, nil)
	require.NoError(t, err, "the next attempt found out")
	require.Equal(t, 2, attempts)

	refusal := status.Error(codes.NotFound, "the cluster has no member b")
	attempts, err = forward(t.Context(), lost, refusal)
	require.Equal(t, refusal, err, "an answer is an answer")
	require.Equal(t, 2, attempts)

	soon, cancel := context.WithTimeout(t.Context(), 5*leaderRetry)
	defer cancel()
	_, err = forward(soon, lost, raftstore.ErrNoLeader)
	require.ErrorIs(t, err, raftstore.ErrUnknownOutcome)
	require.ErrorIs(t, err, raftstore.ErrNoLeader)
	require.ErrorContains(t, err, "read the resource before trying again")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = forward(ended, raftstore.ErrNoLeader)
	require.NotErrorIs(t, err, raftstore.ErrUnknownOutcome, "nothing was done")
}
