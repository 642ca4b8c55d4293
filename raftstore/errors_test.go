package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
)

func TestStatusError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{raftstore.ErrNoLeader, codes.Unavailable},
		{raftstore.ErrClosed, codes.Unavailable},
		{raftstore.ErrBehind, codes.Unavailable},
		{raftstore.ErrNotLeader, codes.Unavailable},
		{raftstore.ErrUnknownOutcome, codes.Unknown},
		{fmt.Errorf("%w: %w", raftstore.ErrUnknownOutcome, context.DeadlineExceeded), codes.Unknown},
		{fmt.Errorf("%w: %w", raftstore.ErrUnknownOutcome, context.Canceled), codes.Unknown},
		{fmt.Errorf("%w: %w", raftstore.ErrUnknownOutcome, raftstore.ErrNoLeader), codes.Unknown},
		{fmt.Errorf("%w: %w", raftstore.ErrUnknownOutcome, status.Error(codes.Unavailable, "EOF")), codes.Unknown},
		{fmt.Errorf("%w (%w)", raftstore.ErrNoLeader, status.Error(codes.Canceled, "EOF")), codes.Unavailable},
		{raftstore.ErrTooLarge, codes.ResourceExhausted},
		{raftstore.ErrBusy, codes.ResourceExhausted},
		{raftstore.ErrWatchRestart, codes.OutOfRange},
		{raftstore.ErrNotMember, codes.NotFound},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{status.Error(codes.AlreadyExists, "there is one"), codes.AlreadyExists},
		{fmt.Errorf("create: %w", status.Error(codes.AlreadyExists, "there is one")), codes.AlreadyExists},
		{errors.New("anything else"), codes.Internal},
	} {
		t.Run(fmt.Sprint(c.err), func(t *testing.T) {
			got := raftstore.StatusError(c.err)
			require.Equal(t, c.want, status.Code(got))
			if c.err != nil {
				require.ErrorContains(t, c.err, status.Convert(got).Message()[:5])
			}
		})
	}
}

// The reason distinguishes what the code does not, whatever the error wraps.
func TestStatusErrorHasReason(t *testing.T) {
	below := status.Error(codes.Unavailable, "connection refused")
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("%w (%w)", raftstore.ErrNoLeader, below), apierror.NoLeader},
		{fmt.Errorf("%w: %w", raftstore.ErrUnknownOutcome, below), apierror.UnknownOutcome},
		{fmt.Errorf("%w: %w", raftstore.ErrUnknownOutcome, raftstore.ErrNoLeader), apierror.UnknownOutcome},
		{fmt.Errorf("%w: %w", raftstore.ErrBehind, below), apierror.Behind},
		{fmt.Errorf("%w: %w", raftstore.ErrWatchRestart, below), apierror.WatchRestart},
	} {
		require.Equal(t, c.want, apierror.Reason(status.Convert(raftstore.StatusError(c.err))), c.err)
	}
}

// A change of the Raft configuration that Raft refuses was not made; one that it had in its log may be.
func TestChangeError(t *testing.T) {
	refusal := errors.New("configuration changed since 7")
	for _, c := range []struct{ raft, want error }{
		{nil, nil},
		{raft.ErrNotLeader, raftstore.ErrNotLeader},
		{raft.ErrLeadershipTransferInProgress, raftstore.ErrNotLeader},
		{raft.ErrLeadershipLost, raftstore.ErrUnknownOutcome},
		{raft.ErrRaftShutdown, raftstore.ErrClosed},
		{refusal, refusal},
	} {
		got := raftstore.ChangeError(c.raft)
		require.ErrorIs(t, got, c.want)
		for _, other := range []error{raftstore.ErrNotLeader, raftstore.ErrUnknownOutcome, raftstore.ErrClosed} {
			require.Equal(t, errors.Is(c.want, other), errors.Is(got, other), "%v is %v", got, other)
		}
	}
}
