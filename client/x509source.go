package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

var (
	_ x509svid.Source   = (*X509Source)(nil)
	_ x509bundle.Source = (*X509Source)(nil)
	_ jwtbundle.Source  = (*X509Source)(nil)
)

// maxRenewalWait is the longest wait without a look at the clock. Timers do not follow a clock that is set, or a
// machine that was suspended.
const maxRenewalWait = time.Minute

// X509SourceConfig configures an [X509Source].
type X509SourceConfig struct {
	// ID is the SPIFFE ID of the SVID. It must be in a trust domain that the cluster hosts.
	ID spiffeid.ID
	// TTL is the requested lifetime. If zero, the setting of the trust domain applies.
	TTL time.Duration
	// DNSNames are DNS names of the certificate. The caller's role must allow them.
	DNSNames []string
	// RenewAfter is the age at which the SVID is renewed. If zero, it is half of the lifetime, or up to a tenth of that
	// earlier, so that programs that start together do not renew together.
	RenewAfter time.Duration
	// CallTimeout bounds each call that issues an SVID. If zero, it is 10 seconds.
	CallTimeout time.Duration
	// OnEvent is called for each event, from one goroutine at a time. It must not block.
	OnEvent func(Event)
}

// X509Source has an X509-SVID and the bundles of all trust domains, and keeps both fresh.
//
// The SVID is renewed with a new key when half of its lifetime has passed, and at once when the authority that signed
// it is tainted or revoked. While renewal fails the source keeps the SVID, even past its expiry, and retries.
type X509Source struct {
	cfg     X509SourceConfig
	svids   ententev1.SVIDServiceClient
	bundles *BundleSource
	updated chan struct{}
	ready   chan struct{} // closed when the first SVID is there
	tasks   tasks

	mu     sync.RWMutex
	issued *Issued
	own    *bundle.Bundle // the newest of the SVID's trust domain

	// What follows belongs to the goroutine that renews.
	distrusted map[string]bool
	failing    bool // the last attempt failed, which was reported
	expired    bool // and so was that the SVID expired since
}

// NewX509Source returns a source that has an SVID and all bundles. It waits for a member that can be reached, until ctx
// ends. An error that does not go away by itself, such as [ErrDenied], is returned at once.
func NewX509Source(ctx context.Context, c *Client, cfg X509SourceConfig) (*X509Source, error) {
	return newX509Source(ctx, c.SVIDs(), c.Bundles(), cfg)
}

func newX509Source(
	ctx context.Context, svids ententev1.SVIDServiceClient, bundles ententev1.BundleServiceClient, cfg X509SourceConfig,
) (*X509Source, error) {
	if cfg.ID.IsZero() {
		return nil, errors.New("the SPIFFE ID of the SVID is empty")
	}
	if cfg.CallTimeout == 0 {
		cfg.CallTimeout = defaultCallTimeout
	}
	cfg.OnEvent = serialized(cfg.OnEvent)
	s := &X509Source{
		cfg: cfg, svids: svids, updated: make(chan struct{}, 1), ready: make(chan struct{}),
		bundles: &BundleSource{known: newKnownBundles(), onEvent: cfg.OnEvent},
	}
	distrusted := make(chan *ententev1.WatchAuthoritiesResponse)
	s.tasks.start(ctx,
		func(ctx context.Context) error { return s.bundles.follow(ctx, bundles) },
		func(ctx context.Context) error { return s.run(ctx, distrusted) },
		func(ctx context.Context) error { return s.followAuthorities(ctx, distrusted) },
	)
	if err := s.tasks.wait(ctx, s.ready, s.bundles.known.complete); err != nil {
		return nil, errors.Join(fmt.Errorf("issue an SVID for %s: %w", cfg.ID, err), s.Close())
	}
	return s, nil
}

// Close stops the source. The SVID and the bundles that it has can still be read.
func (s *X509Source) Close() error { return s.tasks.stop() }

// Updated returns a channel that receives a value after the SVID or bundles changed. Several changes can be one value.
func (s *X509Source) Updated() <-chan struct{} { return s.updated }

// GetX509SVID returns the present SVID. It must not be modified.
func (s *X509Source) GetX509SVID() (*x509svid.SVID, error) { return s.Issued().SVID, nil }

// Issued returns the present SVID with what the cluster returned beside it. It must not be modified.
func (s *X509Source) Issued() *Issued {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.issued
}

// Bundles returns the bundles, ordered by trust domain. The newest known bundle of the SVID's own trust domain is among
// them as long as the cluster hosts the domain.
func (s *X509Source) Bundles() []*bundle.Bundle {
	own, all := s.OwnBundle(), s.bundles.Bundles()
	for i, b := range all {
		if b.TrustDomain() == own.TrustDomain() {
			all[i] = own
		}
	}
	return all
}

// OwnBundle returns the newest bundle of the SVID's trust domain.
func (s *X509Source) OwnBundle() *bundle.Bundle {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.own
}

// GetX509BundleForTrustDomain returns the X.509 authorities of a trust domain. It returns an error if the cluster has
// no bundle of the domain, or shows the caller none.
func (s *X509Source) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if td == s.cfg.ID.TrustDomain() {
		return s.OwnBundle().GetX509BundleForTrustDomain(td)
	}
	return s.bundles.GetX509BundleForTrustDomain(td)
}

// GetJWTBundleForTrustDomain returns the JWT authorities of a trust domain. It returns an error if the cluster has no
// bundle of the domain, or shows the caller none.
func (s *X509Source) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	if td == s.cfg.ID.TrustDomain() {
		return s.OwnBundle().GetJWTBundleForTrustDomain(td)
	}
	return s.bundles.GetJWTBundleForTrustDomain(td)
}

func (s *X509Source) followAuthorities(
	ctx context.Context,
	distrusted chan<- *ententev1.WatchAuthoritiesResponse,
) error {
	request := &ententev1.WatchAuthoritiesRequest{TrustDomains: []string{s.cfg.ID.TrustDomain().Name()}}
	return watch[ententev1.WatchAuthoritiesResponse]{
		open: func(ctx context.Context) (grpc.ServerStreamingClient[ententev1.WatchAuthoritiesResponse], error) {
			return s.svids.WatchAuthorities(ctx, request)
		},
		each: func(m *ententev1.WatchAuthoritiesResponse, _ bool) error {
			select {
			case distrusted <- m:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
		broken: func(err error) error {
			s.cfg.OnEvent(Event{WatchBroken, "receives no changes of authorities until the watch is open again", err})
			return nil
		},
	}.run(ctx)
}

// run issues the first SVID, and then renews it until ctx ends. It returns an error before ctx ends only if the first
// SVID is rejected: later an old SVID is better than none.
func (s *X509Source) run(ctx context.Context, distrusted <-chan *ententev1.WatchAuthoritiesResponse) error {
	retry := newBackoff()
	for s.Issued() == nil {
		err := s.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			close(s.ready)
		case !transient(err):
			return err
		default:
			s.report(err)
			if err := pause(ctx, delay(err, retry)); err != nil {
				return err
			}
		}
	}
	return s.keepRenewing(ctx, distrusted)
}

func (s *X509Source) keepRenewing(ctx context.Context, distrusted <-chan *ententev1.WatchAuthoritiesResponse) error {
	const inTime = "half of its lifetime has passed"
	retry := newBackoff()
	at, why := s.renewal(), inTime
	for {
		timer := time.NewTimer(min(max(time.Until(at), 0), maxRenewalWait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case change := <-distrusted:
			s.distrusted = map[string]bool{}
			for _, a := range change.GetDistrusted() {
				s.distrusted[a.GetId()] = true
			}
			if held := s.Issued().Authority; s.distrusted[held] {
				at, why = time.Now(), fmt.Sprintf("authority %s is no longer trusted", held)
			}
		case <-s.bundles.known.updated:
			s.adoptBundle()
			notify(s.updated)
		case <-timer.C:
		}
		timer.Stop()
		if time.Now().Before(at) {
			continue
		}
		err := s.renew(ctx)
		held := s.Issued()
		if err == nil && s.distrusted[held.Authority] {
			err = fmt.Errorf("the member still signs with authority %s, which is no longer trusted", held.Authority)
		}
		if err != nil {
			if ctx.Err() == nil {
				s.report(err)
			}
			at = time.Now().Add(delay(err, retry))
			continue
		}
		s.failing, s.expired = false, false
		s.cfg.OnEvent(Event{Kind: Renewed, Message: fmt.Sprintf("was renewed by authority %s until %s: %s",
			held.Authority, held.expiry().UTC().Format(time.RFC3339), why)})
		retry.Reset()
		at, why = s.renewal(), inTime
	}
}

// renewal returns when to renew the present SVID.
func (s *X509Source) renewal() time.Time {
	held := s.Issued()
	if s.cfg.RenewAfter != 0 {
		return held.at.Add(s.cfg.RenewAfter)
	}
	return held.renewal(rand.Float64()) //nolint:gosec // not a secret
}

// renew replaces the SVID.
func (s *X509Source) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	next, err := issue(ctx, s.svids, s.cfg)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.issued = next
	if s.own == nil || !newer(s.own, next.bundle) {
		s.own = next.bundle // the member that signed can be behind the one that the watch is open to
	}
	s.mu.Unlock()
	notify(s.updated)
	return nil
}

// adoptBundle takes over a newer bundle of the own trust domain from the watch.
func (s *X509Source) adoptBundle() {
	if !s.bundles.known.settled() {
		return
	}
	next, err := s.bundles.known.get(s.cfg.ID.TrustDomain())
	if err != nil {
		s.cfg.OnEvent(Event{Kind: DomainDeleted, Message: fmt.Sprintf("stays as it is, but the cluster no longer "+
			"hosts %s",
			s.cfg.ID.TrustDomain().Name())})
		return
	}
	if !newer(next, s.OwnBundle()) {
		return
	}
	s.mu.Lock()
	s.own = next
	s.mu.Unlock()
	sequence, _ := next.Sequence()
	s.cfg.OnEvent(Event{Kind: BundleChanged, Message: fmt.Sprintf("has a new bundle of %d X.509 authorities, "+
		"sequence %d",
		len(next.X509Authorities()), sequence)})
}

// newer reports whether a has a higher sequence than b. All bundles of hosted domains have one.
func newer(a, b *bundle.Bundle) bool {
	was, ok := b.Sequence()
	now, nowOK := a.Sequence()
	return ok && nowOK && now > was
}

// report reports a failure once, and once more when the SVID expires meanwhile.
func (s *X509Source) report(err error) {
	held := s.Issued()
	switch {
	case held != nil && !time.Now().Before(held.expiry()) && !s.expired:
		s.expired = true
		s.cfg.OnEvent(Event{Expired, "has expired, and still cannot be renewed", err})
	case !s.failing && held == nil:
		s.cfg.OnEvent(Event{RenewalFailed, "could not be issued, and is retried", err})
	case !s.failing:
		s.cfg.OnEvent(Event{RenewalFailed, "could not be renewed, and is retried; it is valid until " +
			held.expiry().UTC().Format(time.RFC3339), err})
	}
	s.failing = true
}
