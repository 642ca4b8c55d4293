package client

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/ententehq/entente/internal/apierror"
)

// Unconfirmed returns the revision of the state that an answer comes from, if the member has no leader that could
// confirm it: the cluster may have a newer one. header is that of the call, by grpc.Header or ClientStream.Header.
func Unconfirmed(header metadata.MD) (revision uint64, unconfirmed bool) {
	marks := header.Get(apierror.StateHeader)
	if len(marks) == 0 {
		return 0, false
	}
	return apierror.ParseState(marks[0])
}

// WithUnconfirmed calls seen with the revision of each answer that [Unconfirmed] is true of, and for a stream at each
// of its messages. It is called from the goroutines of calls.
func WithUnconfirmed(seen func(revision uint64)) Option {
	check := func(header metadata.MD) {
		if revision, unconfirmed := Unconfirmed(header); unconfirmed {
			seen(revision)
		}
	}
	unary := func(
		ctx context.Context, method string, request, response any, conn *grpc.ClientConn, call grpc.UnaryInvoker,
		options ...grpc.CallOption,
	) error {
		var header metadata.MD
		err := call(ctx, method, request, response, conn, append(slices.Clip(options), grpc.Header(&header))...)
		check(header)
		return err
	}
	stream := func(
		ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer,
		options ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		s, err := open(ctx, desc, conn, method, options...)
		if err != nil {
			return nil, err
		}
		return &checkedStream{ClientStream: s, check: check}, nil
	}
	return WithDialOptions(grpc.WithChainUnaryInterceptor(unary), grpc.WithChainStreamInterceptor(stream))
}

// checkedStream checks the header of a stream with its messages.
type checkedStream struct {
	grpc.ClientStream
	check func(metadata.MD)
}

// RecvMsg implements grpc.ClientStream.
func (s *checkedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if header, failed := s.Header(); failed == nil {
		s.check(header)
	}
	return err
}
