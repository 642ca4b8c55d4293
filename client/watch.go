package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/api/hintdiff"
)

const (
	// firstRetry and lastRetry bound the wait after a failure. An election takes a second; a member that is away for
	// hours must not be flooded when it returns.
	firstRetry, lastRetry = 200 * time.Millisecond, 30 * time.Second
	// defaultCallTimeout bounds calls of sources and leases that have no timeout of their own.
	defaultCallTimeout = 10 * time.Second
)

func newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor = firstRetry, lastRetry, 0.5
	return b
}

// delay returns how long to wait after a failure: what the member requested with it, lastRetry at most, and the
// backoff, which keeps clients apart that the member refused together.
func delay(err error, b *backoff.ExponentialBackOff) time.Duration {
	return min(retryAfter(err), lastRetry) + b.NextBackOff()
}

// pause waits for d. It returns the error of ctx if that ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// watch is a stream of the server that is opened again when it breaks. The first message after opening describes the
// whole state, so that no change is lost in between.
type watch[M any] struct {
	open func(context.Context) (grpc.ServerStreamingClient[M], error)
	// each handles a message. first is true for the first message since the stream was opened.
	each func(m *M, first bool) error
	// broken is called once an outage, with its error, and again with the first one by which a member refuses the
	// caller. If it returns an error, the watch ends with it.
	broken func(error) error
}

// run returns when ctx ends, or when each or broken returns an error.
func (w watch[M]) run(ctx context.Context) error {
	retry := newBackoff()
	outage, refused := false, false
	for {
		stopped := false
		err := w.stream(ctx, func(m *M, first bool) error {
			retry.Reset()
			outage, refused = false, false
			err := w.each(m, first)
			stopped = err != nil
			return err
		})
		if stopped {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if denied := errors.Is(err, ErrDenied); !outage || denied && !refused {
			if err := w.broken(err); err != nil {
				return err
			}
			refused = denied
		}
		outage = true
		if err := pause(ctx, delay(err, retry)); err != nil {
			return err
		}
	}
}

func (w watch[M]) stream(ctx context.Context, each func(*M, bool) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := w.open(ctx)
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the member ended the stream") // it stops
		case err != nil:
			return err
		}
		if err := each(m, first); err != nil {
			return err
		}
	}
}

// errEndOfLoop ends a watch whose consumer stopped.
var errEndOfLoop = errors.New("end of loop")

// WatchHint returns the present hint for callers in a locality that send requests to a service, and then each change of
// it. The same hint can be returned twice, since the stream is opened again when it breaks. The member sends
// differences, of which whole hints are made here. Hints share what has not changed, and must not be changed.
//
// The sequence ends with an error: when ctx ends with the error of ctx, otherwise with an [*Error] that does not go
// away by itself, such as [ErrDenied]. It can be used once.
func (c *Client) WatchHint(
	ctx context.Context,
	service string,
	locality *ententev1.Locality,
) iter.Seq2[*ententev1.Hint, error] {
	request := &ententev1.WatchHintRequest{Service: service, Locality: locality, Differences: true}
	return func(yield func(*ententev1.Hint, error) bool) {
		err := watch[ententev1.Hint]{
			open: func(ctx context.Context) (grpc.ServerStreamingClient[ententev1.Hint], error) {
				stream, err := c.Routing().WatchHint(ctx, request)
				return &wholeHints{ServerStreamingClient: stream}, err
			},
			each: func(hint *ententev1.Hint, _ bool) error {
				if !yield(hint, nil) {
					return errEndOfLoop
				}
				return nil
			},
			broken: permanent,
		}.run(ctx)
		if !errors.Is(err, errEndOfLoop) {
			yield(nil, err)
		}
	}
}

// wholeHints is a stream of hints and differences, of which it makes hints. A difference that does not fit ends it.
type wholeHints struct {
	grpc.ServerStreamingClient[ententev1.Hint]
	last *ententev1.Hint
}

// Recv implements grpc.ServerStreamingClient.
func (s *wholeHints) Recv() (*ententev1.Hint, error) {
	m, err := s.ServerStreamingClient.Recv()
	if err == nil && m.GetDifference() != nil {
		m, err = hintdiff.Apply(s.last, m)
	}
	s.last = m
	return m, err
}

// permanent returns an error of the API that does not go away by itself, and nil for others.
func permanent(err error) error {
	var known *Error
	if errors.As(err, &known) && !transient(err) {
		return err
	}
	return nil
}
