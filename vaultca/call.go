package vaultca

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/vault/api"
)

// caller makes calls of Vault's API: bounded, counted, and tried again where that can help.
type caller struct {
	config    Config
	transport *http.Transport
	metrics   *metrics
	login     login
	rest      rest
}

func newCaller(c Config, m *metrics) *caller {
	return &caller{config: c, transport: newTransport(c), metrics: m, login: login{turn: make(chan struct{}, 1), made: make(chan struct{}, 1)}}
}

// call is what is asked of Vault by a client with or without a token.
type call func(context.Context, *api.Client) (*api.Secret, error)

// once makes one attempt, unless Vault asked to be left alone.
func (c *caller) once(ctx context.Context, operation string, client *api.Client, fn call) (*api.Secret, error) {
	if left := c.rest.left(); left > 0 {
		return nil, resting(left)
	}
	secret, err := c.within(withRest(ctx, &c.rest), c.config.Timeout, operation, client, fn)
	if left := c.rest.left(); err != nil && left > 0 && passes(err) {
		err = fmt.Errorf("%w (%w)", err, &backoff.RetryAfterError{Duration: left})
	}
	return secret, err
}

// within makes one attempt that takes no longer than timeout.
func (c *caller) within(ctx context.Context, timeout time.Duration, operation string, client *api.Client, fn call) (*api.Secret, error) {
	began := time.Now()
	attempt, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	secret, err := fn(attempt, client)
	if err == nil && secret == nil {
		err = fmt.Errorf("%w: %w", ErrMalformed, errNoAnswer)
	}
	if ctx.Err() != nil && err != nil {
		return nil, context.Cause(ctx)
	}
	err = classify(err)
	c.metrics.call(operation, err, time.Since(began))
	return secret, err
}

// repeated makes attempts, with growing and random pauses, until one succeeds, none can, or the time is up.
func (c *caller) repeated(ctx context.Context, operation string, client *api.Client, fn call) (*api.Secret, error) {
	secret, err := backoff.Retry(ctx, func() (*api.Secret, error) {
		secret, err := c.once(ctx, operation, client, fn)
		if err != nil && !passes(err) {
			return nil, backoff.Permanent(err)
		}
		if err != nil {
			tell(ctx, err)
		}
		return secret, err
	}, backoff.WithBackOff(pauses(c.config.RetryFor/4)), backoff.WithMaxElapsedTime(c.config.RetryFor))
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Err
	}
	return secret, err
}

// attemptsKey is where a context holds who is told of attempts that failed and are made again.
type attemptsKey struct{}

// telling has fn told of each attempt that fails and is made again, and after it whoever else the context has told.
func telling(ctx context.Context, fn func(error)) context.Context {
	return context.WithValue(ctx, attemptsKey{}, func(err error) {
		fn(err)
		tell(ctx, err)
	})
}

func tell(ctx context.Context, err error) {
	if fn, ok := ctx.Value(attemptsKey{}).(func(error)); ok {
		fn(err)
	}
}

// pauses grow from 250 ms by half each time, and each is drawn from the half around its length.
func pauses(longest time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 250*time.Millisecond, max(longest, 250*time.Millisecond)
	return b
}

// anonymous calls what Vault tells anybody.
func (c *caller) anonymous(ctx context.Context, operation string, fn call) (*api.Secret, error) {
	client, err := newAPI(c.config, c.transport)
	if err != nil {
		return nil, err
	}
	return c.repeated(ctx, operation, client, fn)
}

// authorized calls with the present login. If Vault denies it, the login may have been revoked: it is made anew, once.
func (c *caller) authorized(ctx context.Context, operation string, fn call) (*api.Secret, error) {
	s, fresh, err := c.session(ctx)
	if err != nil {
		return nil, err
	}
	secret, err := c.repeated(ctx, operation, s.client, fn)
	if fresh || !errors.Is(err, ErrDenied) {
		return secret, err
	}
	c.config.Logger.Info("Vault denies a call; logging in again", "operation", operation)
	c.drop(s)
	if s, _, err = c.session(ctx); err != nil {
		return nil, err
	}
	return c.repeated(ctx, operation, s.client, fn)
}
