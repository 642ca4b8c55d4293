package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/internal/apierror"
)

func TestErrorKinds(t *testing.T) {
	all := []error{
		ErrUnavailable, ErrNoLeader, ErrUnknownOutcome, ErrDenied, ErrUnauthenticated, ErrNotFound, ErrAlreadyExists,
		ErrConflict, ErrFailedPrecondition, ErrInvalidArgument, ErrExhausted, ErrWatchRestart, ErrUnimplemented,
		ErrBundleEndpoint, context.Canceled, context.DeadlineExceeded,
	}
	for name, test := range map[string]struct {
		err  error
		want []error
	}{
		"a reason": {
			apierror.New(codes.Unavailable, apierror.NoLeader, "no leader"),
			[]error{ErrNoLeader, ErrUnavailable},
		},
		"a write of unknown outcome": {
			apierror.New(codes.Unknown, apierror.UnknownOutcome, "read first"), []error{ErrUnknownOutcome},
		},
		"a watch that missed changes": {
			apierror.New(codes.OutOfRange, apierror.WatchRestart, "read again"), []error{ErrWatchRestart},
		},
		"a code alone":   {status.Error(codes.Aborted, "changed"), []error{ErrConflict}},
		"no connection":  {status.Error(codes.Unavailable, "connection error"), []error{ErrUnavailable}},
		"canceled":       {status.Error(codes.Canceled, "canceled"), []error{context.Canceled}},
		"a deadline":     {status.Error(codes.DeadlineExceeded, "late"), []error{context.DeadlineExceeded}},
		"another":        {status.Error(codes.DataLoss, "lost"), nil},
		"not of gRPC":    {errors.New("broken"), nil},
		"wrapped before": {fmt.Errorf("read: %w", wrap(status.Error(codes.NotFound, "gone"))), []error{ErrNotFound}},
	} {
		t.Run(name, func(t *testing.T) {
			err := wrap(test.err)
			require.Equal(t, status.Code(test.err), status.Code(err))
			for _, kind := range all {
				assert.Equal(t, contains(test.want, kind), errors.Is(err, kind), "is %v", kind)
			}
		})
	}
	require.NoError(t, wrap(nil))
	require.Equal(t, io.EOF, wrap(io.EOF))
}

func contains(list []error, err error) bool {
	return slices.Contains(list, err)
}
