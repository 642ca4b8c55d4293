package apierror_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
)

func TestComplete(t *testing.T) {
	update := &ententev1.UpdateDomainRequest{}
	for name, test := range map[string]struct {
		err           error
		request       proto.Message
		reason, field string
	}{
		"the code implies the reason": {err: status.Error(codes.NotFound, "no such domain"), reason: apierror.NotFound},
		"an explicit reason stays": {
			err: apierror.New(codes.Unavailable, apierror.NoLeader, "no leader"), reason: apierror.NoLeader,
		},
		"a field of the request": {
			err: status.Error(codes.InvalidArgument, "update_mask is empty"), request: update,
			reason: apierror.InvalidArgument, field: "update_mask",
		},
		"a field of the resource in the request": {
			err: status.Error(codes.InvalidArgument, "refresh_hint is 1s; the least is 10s"), request: update,
			reason: apierror.InvalidArgument, field: "domain.refresh_hint",
		},
		"a path in the request": {
			err: status.Error(codes.InvalidArgument, "domain.ca_ttl is not a duration"), request: update,
			reason: apierror.InvalidArgument, field: "domain.ca_ttl",
		},
		"no field": {
			err: status.Error(codes.InvalidArgument, "the request is malformed"), request: update,
			reason: apierror.InvalidArgument,
		},
		"no request": {
			err: status.Error(codes.InvalidArgument, "update_mask is empty"), reason: apierror.InvalidArgument,
		},
		"a field in another error": {
			err: status.Error(codes.NotFound, "update_mask is empty"), request: update, reason: apierror.NotFound,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := apierror.Complete(test.err, test.request)
			require.EqualError(t, got, test.err.Error())
			s := status.Convert(got)
			assert.Equal(t, test.reason, apierror.Reason(s))
			var fields []string
			var infos int
			for _, detail := range s.Details() {
				switch detail := detail.(type) {
				case *errdetails.ErrorInfo:
					infos++
				case *errdetails.BadRequest:
					fields = append(fields, detail.GetFieldViolations()[0].GetField())
				}
			}
			assert.Equal(t, 1, infos)
			if test.field == "" {
				assert.Empty(t, fields)
			} else {
				assert.Equal(t, []string{test.field}, fields)
			}
		})
	}
}

func TestCompleteLeavesOtherErrorsAlone(t *testing.T) {
	plain := errors.New("plain")
	require.NoError(t, apierror.Complete(nil, nil))
	require.Same(t, plain, apierror.Complete(plain, nil))
	require.Empty(t, apierror.Reason(status.Convert(apierror.Complete(status.Error(codes.Canceled, "canceled"), nil))))
}

func TestInterceptors(t *testing.T) {
	request := &ententev1.UpdateDomainRequest{}
	invalid := status.Error(codes.InvalidArgument, "update_mask is empty")
	_, err := apierror.Unary(context.Background(), request, nil, func(context.Context, any) (any, error) {
		return nil, invalid
	})
	require.Len(t, status.Convert(err).Details(), 2)
	err = apierror.Stream(nil, incoming{}, nil, func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(request); err != nil {
			return err
		}
		return invalid
	})
	require.Len(t, status.Convert(err).Details(), 2)
}

type incoming struct{ grpc.ServerStream }

func (incoming) RecvMsg(any) error { return nil }
