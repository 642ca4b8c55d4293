package webcert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Orders coordinates the members of a cluster when they order certificates. Members answer an ACME server for each
// other, and a name has one answer at a time, so one member at a time orders for a name. Its methods are called from
// any goroutine.
type Orders interface {
	// Acquire waits for the lease to order a certificate for host. The lease lasts until Release, and for [OrderLease]
	// at most.
	Acquire(ctx context.Context, host string) error
	// Release returns the lease. After an error the next member has to wait for its end.
	Release(ctx context.Context, host string) error
	// Present makes proof the answer of every member for host. It fails unless this member holds the lease.
	Present(ctx context.Context, host, proof string) error
	// Withdraw deletes the answer, if there is one.
	Withdraw(ctx context.Context, host string) error
	// Answer returns the proof that some member has presented for host, or "". It is called for each handshake of the
	// challenge's protocol, from any client.
	Answer(ctx context.Context, host string) (string, error)
}

// OrderLease is the longest lease of a host name: one order, and a margin for clocks that differ.
const OrderLease = orderTimeout + 30*time.Second

const (
	releaseTimeout   = 5 * time.Second
	maxACMEFileBytes = 1 << 20
	maxProofBytes    = 512
)

// errOrders marks failures of the cluster, as opposed to those of the ACME server.
var errOrders = errors.New("the members could not agree on the order")

// acmeStorage keeps account, keys and certificates in a folder of this member. Only challenges and leases go to
// [Orders].
type acmeStorage struct {
	files  *certmagic.FileStorage
	orders Orders
	failed func(host string, err error) // an order could not begin

	mu    sync.Mutex
	turns map[string]chan struct{} // within this member; each has a buffer of one
}

func newACMEStorage(dir string, orders Orders, failed func(string, error)) *acmeStorage {
	return &acmeStorage{
		files:  &certmagic.FileStorage{Path: dir},
		orders: orders,
		failed: failed,
		turns:  map[string]chan struct{}{},
	}
}

// issueLock begins certmagic's name of the lock for orders of a host name.
const issueLock = "issue_cert_"

// challengeHost returns the host of certmagic's key for a challenge.
func challengeHost(key string) (string, bool) {
	_, name, ok := strings.Cut(key, "/challenge_tokens/")
	return strings.TrimSuffix(name, ".json"), ok
}

// Lock implements [certmagic.Locker].
func (s *acmeStorage) Lock(ctx context.Context, name string) error {
	turn := s.turn(name)
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	host, ok := strings.CutPrefix(name, issueLock)
	if !ok {
		return nil // the account, which belongs to this member alone
	}
	if err := s.orders.Acquire(ctx, host); err != nil {
		<-turn
		if ctx.Err() == nil {
			s.failed(host, err)
		}
		return fmt.Errorf("%w: %w", errOrders, err)
	}
	return nil
}

// Unlock implements [certmagic.Locker].
func (s *acmeStorage) Unlock(ctx context.Context, name string) error {
	defer func() { <-s.turn(name) }()
	host, ok := strings.CutPrefix(name, issueLock)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	return s.orders.Release(ctx, host)
}

func (s *acmeStorage) turn(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns[name] == nil {
		s.turns[name] = make(chan struct{}, 1)
	}
	return s.turns[name]
}

// Store implements [certmagic.Storage].
func (s *acmeStorage) Store(ctx context.Context, key string, value []byte) error {
	host, ok := challengeHost(key)
	if !ok {
		return s.files.Store(ctx, key, value)
	}
	var challenge acme.Challenge
	if err := json.Unmarshal(value, &challenge); err != nil {
		return fmt.Errorf("challenge of %s: %w", host, err)
	}
	proof := challenge.KeyAuthorization
	if challenge.Identifier.Value != host || proof == "" || len(proof) > maxProofBytes {
		return fmt.Errorf(
			"the ACME server's challenge of %s is for %s, with a proof of %d bytes",
			host,
			refusal.Clip(challenge.Identifier.Value),
			len(proof),
		)
	}
	if err := s.orders.Present(ctx, host, proof); err != nil {
		return fmt.Errorf("%w: %w", errOrders, err)
	}
	return nil
}

// Load implements [certmagic.Storage].
func (s *acmeStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if info, err := s.Stat(ctx, key); err != nil {
		return nil, err
	} else if info.Size > maxACMEFileBytes {
		return nil, fmt.Errorf("%s has more than %d bytes", s.files.Filename(key), maxACMEFileBytes)
	}
	return s.files.Load(ctx, key)
}

// Delete implements [certmagic.Storage].
func (s *acmeStorage) Delete(ctx context.Context, key string) error {
	host, ok := challengeHost(key)
	if !ok {
		return s.files.Delete(ctx, key)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	return s.orders.Withdraw(ctx, host)
}

// Exists implements [certmagic.Storage].
func (s *acmeStorage) Exists(ctx context.Context, key string) bool {
	_, challenge := challengeHost(key)
	return !challenge && s.files.Exists(ctx, key)
}

// List implements [certmagic.Storage].
func (s *acmeStorage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	return s.files.List(ctx, prefix, recursive)
}

// Stat implements [certmagic.Storage].
func (s *acmeStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	if _, challenge := challengeHost(key); challenge {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return s.files.Stat(ctx, key)
}
