package vault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// Session is one login. Its times come from the local clock's monotonic part, so that a step of the clock does not
// matter.
type Session struct {
	Client    *api.Client
	ttl       time.Duration // the longest that Vault has given it; 0: it never ends
	granted   time.Time     // when it was made or last renewed
	life      time.Duration // from then on
	renewable bool
}

// margin is how long before its end a login counts as over: a call takes time, and clocks do not run alike.
const margin = 5 * time.Second

func (s *Session) over() bool {
	return s.ttl > 0 && time.Since(s.granted) > s.life-min(margin, s.ttl/10)
}

// tendIn is when to renew: at two thirds of its life or up to a tenth of it earlier, so that members do not come
// together.
func (s *Session) tendIn() time.Duration {
	early := time.Duration(rand.Int64N(int64(s.life/10) + 1)) //nolint:gosec // G404: spreads load, guards nothing
	return time.Until(s.granted.Add(s.life*2/3 - early))
}

// login is who is logged in. A turn is held while logging in, so that a hundred callers make one login.
type login struct {
	turn chan struct{}
	made chan struct{} // holds a word for keep when there is a new session

	mu  sync.Mutex
	now *Session
}

func (l *login) current() *Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func (l *login) set(s *Session) {
	l.mu.Lock()
	l.now = s
	l.mu.Unlock()
	select {
	case l.made <- struct{}{}:
	default:
	}
}

// Drop forgets a session that Vault denied, unless there is another one already.
func (c *Caller) Drop(s *Session) {
	c.login.mu.Lock()
	defer c.login.mu.Unlock()
	if c.login.now == s {
		c.login.now = nil
	}
}

// Session returns the present login, or makes one; fresh if it was made for this very call.
func (c *Caller) Session(ctx context.Context) (s *Session, fresh bool, err error) {
	select {
	case c.login.turn <- struct{}{}:
		defer func() { <-c.login.turn }()
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	if s := c.login.current(); s != nil && !s.over() {
		return s, false, nil
	}
	s, err = c.logIn(ctx)
	return s, true, err
}

// logIn makes a new login; the caller has the turn.
func (c *Caller) logIn(ctx context.Context) (*Session, error) {
	client, err := newAPI(c.Config, c.transport)
	if err != nil {
		return nil, err
	}
	if _, ok := c.Config.Auth.(Certificate); ok {
		c.transport.CloseIdleConnections() // they were opened with the certificate of then
	}
	began := time.Now()
	secret, err := c.Repeated(ctx, "login", client, func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		return c.Config.Auth.login(ctx, client)
	})
	if err == nil && (secret.Auth == nil || secret.Auth.ClientToken == "") {
		err = fmt.Errorf("%w: no token in the answer to a login", ErrMalformed)
	}
	if errors.Is(err, ErrRejected) || errors.Is(err, ErrDenied) || errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrLogin, err)
	}
	if err != nil {
		return nil, fmt.Errorf("log in to Vault by %s: %w", c.Config.Auth.Method(), err)
	}
	client.SetToken(secret.Auth.ClientToken)
	life := time.Duration(secret.Auth.LeaseDuration) * time.Second
	s := &Session{Client: client, ttl: life, granted: began, life: life, renewable: secret.Auth.Renewable}
	c.login.set(s)
	c.metrics.session(s)
	c.Config.Logger.Debug("logged in to Vault", "method", c.Config.Auth.Method(), "for", life, "renewable", s.renewable)
	return s, nil
}

// Renew makes the session last longer, and says whether that was worth it: near the end of what Vault allows it is not.
func (c *Caller) Renew(ctx context.Context, s *Session) (*Session, error) {
	began := time.Now()
	secret, err := c.Repeated(
		ctx,
		"renew",
		s.Client,
		func(ctx context.Context, client *api.Client) (*api.Secret, error) {
			return client.Auth().Token().RenewSelfWithContext(ctx, int(s.ttl.Seconds()))
		},
	)
	if err != nil {
		return nil, err
	}
	if secret.Auth == nil {
		return nil, fmt.Errorf("%w: no lease in the answer to a renewal", ErrMalformed)
	}
	renewed := *s
	renewed.granted, renewed.life, renewed.renewable = began, time.Duration(
		secret.Auth.LeaseDuration,
	)*time.Second, secret.Auth.Renewable
	return &renewed, nil
}

// Keep renews the login while there is one, and replaces it in time, until ctx ends. It does not make the first one:
// that is up to who needs it.
func (c *Caller) Keep(ctx context.Context) error {
	pause := Pauses(time.Minute)
	var again time.Duration // after a failure
	for {
		s := c.login.current()
		var due <-chan time.Time // without a session that ends, nothing is ever due
		if s != nil && s.ttl > 0 {
			due = time.After(max(s.tendIn(), again, 0))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.login.made:
			again = 0
			pause.Reset()
			continue
		case <-due:
		}
		if err := c.tend(ctx, s); err != nil && ctx.Err() == nil {
			again = pause.NextBackOff()
			c.Config.Logger.Warn("cannot keep the login to Vault alive; trying again", "error", err, "in", again)
		}
	}
}

// tend renews a session, or else makes the next one while the present one still lasts.
func (c *Caller) tend(ctx context.Context, s *Session) error {
	select {
	case c.login.turn <- struct{}{}:
		defer func() { <-c.login.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if c.login.current() != s {
		return nil
	}
	if s.renewable && !s.over() {
		renewed, err := c.Renew(ctx, s)
		switch {
		case err == nil && renewed.life >= s.ttl/2:
			c.login.set(renewed)
			c.metrics.session(renewed)
			return nil
		case err != nil && Transient(err):
			return err
		}
	}
	_, err := c.logIn(ctx)
	return err
}
