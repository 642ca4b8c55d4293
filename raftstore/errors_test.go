package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
