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

// Session is one login. Its times are monotonic, so that a step of the clock does not matter.
type Session struct {
	Client    *api.Client
	ttl       time.Duration // the longest lease so far; 0 if it never ends
	granted   time.Time     // when it was made or last renewed
	life      time.Duration // from then on
	renewable bool
}

// margin is the time before its end at which a login counts as over: a call takes time, and clocks differ.
const margin = 5 * time.Second

func (s *Session) over() bool {
	return s.ttl > 0 && time.Since(s.granted) > s.life-min(margin, s.ttl/10)
}

// renewIn returns the time until the renewal: at two thirds of its life or up to a tenth of it earlier, so that members
// do not renew at the same time.
func (s *Session) renewIn() time.Duration {
	early := time.Duration(rand.Int64N(int64(s.life/10) + 1)) //nolint:gosec // G404: spreads load, guards nothing
	return time.Until(s.granted.Add(s.life*2/3 - early))
}

// login holds the present login. Logging in holds the turn, so that a hundred callers make one login.
type login struct {
	turn chan struct{}
	made chan struct{} // signals a new session to Keep

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

// Drop removes a session that Vault denied, unless it was replaced already.
func (c *Caller) Drop(s *Session) {
	c.login.mu.Lock()
	defer c.login.mu.Unlock()
	if c.login.now == s {
		c.login.now = nil
	}
}

// Session returns the present login, or makes one. fresh reports whether it was made for this call.
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

// logIn makes a new login. The caller holds the turn.
func (c *Caller) logIn(ctx context.Context) (*Session, error) {
	client, err := newAPI(c.Config, c.transport)
	if err != nil {
		return nil, err
	}
	if _, ok := c.Config.Auth.(Certificate); ok {
		c.transport.CloseIdleConnections() // they were opened with the certificate of that time
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

// Renew extends the session. Near the end of what Vault allows the extension is short.
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

// Keep renews the login, and replaces it in time, until ctx ends. The first call that needs a login makes the first
// one.
func (c *Caller) Keep(ctx context.Context) error {
	pause := Pauses(time.Minute)
	var again time.Duration // after a failure
	for {
		s := c.login.current()
		var due <-chan time.Time // a session that never ends is never due
		if s != nil && s.ttl > 0 {
			due = time.After(max(s.renewIn(), again, 0))
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
		if err := c.extend(ctx, s); err != nil && ctx.Err() == nil {
			again = pause.NextBackOff()
			c.Config.Logger.Warn("cannot keep the login to Vault alive; trying again", "error", err, "in", again)
		}
	}
}

// extend renews a session, or else makes the next one while the present one still lasts.
func (c *Caller) extend(ctx context.Context, s *Session) error {
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
