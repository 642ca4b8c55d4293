package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/vault/api"
	"github.com/prometheus/client_golang/prometheus"
)

// Caller calls Vault's API. Calls are bounded, counted, and retried if that can help.
type Caller struct {
	Config    Config
	transport *http.Transport
	metrics   *metrics
	login     login
	rest      rest
}

func newCaller(c Config, m *metrics) *Caller {
	return &Caller{
		Config:    c,
		transport: newTransport(c),
		metrics:   m,
		login:     login{turn: make(chan struct{}, 1), made: make(chan struct{}, 1)},
	}
}

// Open returns a caller with metrics of its own.
func Open(c Config) (*Caller, error) {
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	return newCaller(c, m), nil
}

// Token returns the token of the present login, or "".
func (c *Caller) Token() string {
	if s := c.login.current(); s != nil {
		return s.Client.Token()
	}
	return ""
}

// Calls returns the counter of attempts of an operation with a result.
func (c *Caller) Calls(operation, result string) prometheus.Counter {
	return c.metrics.calls.WithLabelValues(operation, result)
}

// Resting returns the time for which no call is made, because Vault sent a Retry-After.
func (c *Caller) Resting() time.Duration { return c.rest.left() }

// Close closes the idle connections.
func (c *Caller) Close() { c.transport.CloseIdleConnections() }

// call makes one call with a client that has a token or not.
type call func(context.Context, *api.Client) (*api.Secret, error)

// once makes one attempt, unless Vault sent a Retry-After that has not passed.
func (c *Caller) once(ctx context.Context, operation string, client *api.Client, fn call) (*api.Secret, error) {
	if left := c.rest.left(); left > 0 {
		return nil, resting(left)
	}
	secret, err := c.Within(withRest(ctx, &c.rest), c.Config.Timeout, operation, client, fn)
	if left := c.rest.left(); err != nil && left > 0 && Transient(err) {
		err = fmt.Errorf("%w (%w)", err, &backoff.RetryAfterError{Duration: left})
	}
	return secret, err
}

// Within makes one attempt within a timeout.
func (c *Caller) Within(
	ctx context.Context,
	timeout time.Duration,
	operation string,
	client *api.Client,
	fn call,
) (*api.Secret, error) {
	began := time.Now()
	attempt, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	seen := &trail{}
	secret, err := fn(context.WithValue(attempt, trailKey{}, seen), client)
	switch {
	case err == nil && secret == nil && seen.status == http.StatusNotFound:
		err = fmt.Errorf("%w (HTTP %d)", ErrNotFound, seen.status) // to Vault's client it is an empty answer
	case err == nil && secret == nil:
		err = fmt.Errorf("%w: %w", ErrMalformed, errNoAnswer)
	}
	if ctx.Err() != nil && err != nil {
		return nil, context.Cause(ctx)
	}
	err = classify(err)
	c.metrics.call(operation, err, time.Since(began))
	return secret, err
}

// Repeated makes attempts, with growing and random pauses, until one succeeds, an error is permanent, or the time is
// up.
func (c *Caller) Repeated(ctx context.Context, operation string, client *api.Client, fn call) (*api.Secret, error) {
	secret, err := backoff.Retry(ctx, func() (*api.Secret, error) {
		secret, err := c.once(ctx, operation, client, fn)
		if err != nil && !Transient(err) {
			return nil, backoff.Permanent(err)
		}
		if err != nil {
			reportFailure(ctx, err)
		}
		return secret, err
	}, backoff.WithBackOff(Pauses(c.Config.RetryFor/4)), backoff.WithMaxElapsedTime(c.Config.RetryFor))
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Err
	}
	return secret, err
}

// attemptsKey is the context key of the function that receives failed attempts.
type attemptsKey struct{}

// WithFailures returns a context whose failed attempts are passed to fn, and then to the function of ctx, if any.
func WithFailures(ctx context.Context, fn func(error)) context.Context {
	return context.WithValue(ctx, attemptsKey{}, func(err error) {
		fn(err)
		reportFailure(ctx, err)
	})
}

func reportFailure(ctx context.Context, err error) {
	if fn, ok := ctx.Value(attemptsKey{}).(func(error)); ok {
		fn(err)
	}
}

// Pauses grow from 250 ms by half each time. Each is drawn at random from the half around its length.
func Pauses(longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 250*time.Millisecond, max(longest, 250*time.Millisecond)
	return b
}

// Anonymous makes a call without a login.
func (c *Caller) Anonymous(ctx context.Context, operation string, fn call) (*api.Secret, error) {
	client, err := newAPI(c.Config, c.transport)
	if err != nil {
		return nil, err
	}
	return c.Repeated(ctx, operation, client, fn)
}

// Authorized makes a call with the present login. If Vault denies it, the login may have been revoked: it is replaced
// once.
func (c *Caller) Authorized(ctx context.Context, operation string, fn call) (*api.Secret, error) {
	s, fresh, err := c.Session(ctx)
	if err != nil {
		return nil, err
	}
	secret, err := c.Repeated(ctx, operation, s.Client, fn)
	if fresh || !errors.Is(err, ErrDenied) {
		return secret, err
	}
	c.Config.Logger.Info("Vault denies a call; logging in again", "operation", operation)
	c.Drop(s)
	if s, _, err = c.Session(ctx); err != nil {
		return nil, err
	}
	return c.Repeated(ctx, operation, s.Client, fn)
}
