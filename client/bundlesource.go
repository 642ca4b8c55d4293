package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

var (
	_ x509bundle.Source = (*BundleSource)(nil)
	_ jwtbundle.Source  = (*BundleSource)(nil)
)

// BundleSource keeps the bundle of every trust domain that the caller may see, hosted and foreign. While no member can
// be reached the bundles stay as they are.
type BundleSource struct {
	known   *knownBundles
	only    []string // trust domains; empty: all
	onEvent func(Event)
	tasks   tasks
}

// BundleSourceConfig configures a [BundleSource]. All fields may be left zero.
type BundleSourceConfig struct {
	// TrustDomains are the domains whose bundles the source has. If empty, all that the caller may see.
	TrustDomains []spiffeid.TrustDomain
	// OnEvent is called for each event, from one goroutine at a time. It must not block.
	OnEvent func(Event)
}

// NewBundleSource returns a source that has received all bundles. It waits for a member that can be reached, until ctx
// ends. An error that does not go away by itself, such as [ErrDenied], is returned at once.
func NewBundleSource(ctx context.Context, c *Client, cfg BundleSourceConfig) (*BundleSource, error) {
	return newBundleSource(ctx, c.Bundles(), cfg)
}

func newBundleSource(
	ctx context.Context, bundles ententev1.BundleServiceClient, cfg BundleSourceConfig,
) (*BundleSource, error) {
	s := &BundleSource{known: newKnownBundles(), onEvent: serialized(cfg.OnEvent)}
	for _, td := range cfg.TrustDomains {
		s.only = append(s.only, td.Name())
	}
	s.tasks.start(ctx, func(ctx context.Context) error { return s.follow(ctx, bundles) })
	if err := s.tasks.wait(ctx, s.known.complete); err != nil {
		return nil, errors.Join(fmt.Errorf("receive the bundles of the cluster: %w", err), s.Close())
	}
	return s, nil
}

// Close stops the source. The bundles that it has can still be read.
func (s *BundleSource) Close() error { return s.tasks.stop() }

// Updated returns a channel that receives a value after bundles changed. Several changes can be one value.
func (s *BundleSource) Updated() <-chan struct{} { return s.known.updated }

// Bundles returns the bundles, ordered by trust domain.
func (s *BundleSource) Bundles() []*bundle.Bundle { return s.known.all() }

// GetX509BundleForTrustDomain returns the X.509 authorities of a trust domain. It returns an error if the cluster has
// no bundle of the domain, or shows the caller none.
func (s *BundleSource) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	b, err := s.known.get(td)
	if err != nil {
		return nil, err
	}
	return b.GetX509BundleForTrustDomain(td)
}

// GetJWTBundleForTrustDomain returns the JWT authorities of a trust domain. It returns an error if the cluster has no
// bundle of the domain, or shows the caller none.
func (s *BundleSource) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	b, err := s.known.get(td)
	if err != nil {
		return nil, err
	}
	return b.GetJWTBundleForTrustDomain(td)
}

func (s *BundleSource) follow(ctx context.Context, bundles ententev1.BundleServiceClient) error {
	return watch[ententev1.WatchBundlesResponse]{
		open: func(ctx context.Context) (grpc.ServerStreamingClient[ententev1.WatchBundlesResponse], error) {
			return bundles.WatchBundles(ctx, &ententev1.WatchBundlesRequest{TrustDomains: s.only})
		},
		each: func(m *ententev1.WatchBundlesResponse, first bool) error {
			for domain, err := range s.known.apply(m, first) {
				s.onEvent(
					Event{BundleInvalid, "keeps the previous bundle of " + domain + ": the new one is invalid", err},
				)
			}
			return nil
		},
		broken: s.broken,
	}.run(ctx)
}

func (s *BundleSource) broken(err error) error {
	if !s.known.isComplete() {
		if err := permanent(err); err != nil {
			return err
		}
	}
	s.onEvent(Event{WatchBroken, "receives no changes of bundles until the watch is open again", err})
	return nil
}

// knownBundles are the bundles that a watch has delivered.
type knownBundles struct {
	updated  chan struct{} // has a value after a change
	complete chan struct{} // closed when the whole state has arrived once

	mu       sync.RWMutex
	byDomain map[string]*bundle.Bundle
	// arrived holds the domains that an open watch has delivered, until it has delivered the whole state. Then it is
	// nil.
	arrived map[string]bool
}

func newKnownBundles() *knownBundles {
	return &knownBundles{
		updated: make(chan struct{}, 1), complete: make(chan struct{}), byDomain: map[string]*bundle.Bundle{},
	}
}

// apply stores what a message of a watch changes. It returns why bundles were rejected, by trust domain.
func (k *knownBundles) apply(m *ententev1.WatchBundlesResponse, first bool) map[string]error {
	k.mu.Lock()
	defer k.mu.Unlock()
	rejected := map[string]error{}
	if first {
		k.arrived = map[string]bool{}
	}
	for _, b := range m.GetChanged() {
		if k.arrived != nil {
			k.arrived[b.GetTrustDomain()] = true
		}
		parsed, err := parseBundle(b.GetTrustDomain(), b.GetDocument())
		if err != nil {
			rejected[b.GetTrustDomain()] = err
			continue
		}
		k.byDomain[b.GetTrustDomain()] = parsed
	}
	for _, domain := range m.GetDeleted() {
		delete(k.byDomain, domain)
	}
	if k.arrived != nil && !m.GetMore() {
		// A domain that the whole state lacks was deleted while no watch was open.
		maps.DeleteFunc(k.byDomain, func(domain string, _ *bundle.Bundle) bool { return !k.arrived[domain] })
		k.arrived = nil
		if !k.isComplete() {
			close(k.complete)
		}
	}
	if k.arrived == nil {
		notify(k.updated)
	}
	return rejected
}

func (k *knownBundles) isComplete() bool {
	select {
	case <-k.complete:
		return true
	default:
		return false
	}
}

// settled reports whether the open watch has delivered the whole state.
func (k *knownBundles) settled() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.arrived == nil && k.isComplete()
}

func (k *knownBundles) get(td spiffeid.TrustDomain) (*bundle.Bundle, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if b := k.byDomain[td.Name()]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("the cluster has no bundle of %s for this caller", td.Name())
}

func (k *knownBundles) all() []*bundle.Bundle {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return slices.SortedFunc(maps.Values(k.byDomain), func(a, b *bundle.Bundle) int {
		return strings.Compare(a.TrustDomain().Name(), b.TrustDomain().Name())
	})
}

func parseBundle(domain string, document []byte) (*bundle.Bundle, error) {
	td, err := bundle.ParseTrustDomain(domain)
	if err != nil {
		return nil, err
	}
	b, _, err := bundle.Parse(td, document)
	return b, err
}

// notify puts a value into a channel of capacity 1, unless it has one.
func notify(updated chan<- struct{}) {
	select {
	case updated <- struct{}{}:
	default:
	}
}

// serialized returns a function that calls f from one goroutine at a time. f may be nil.
func serialized(f func(Event)) func(Event) {
	if f == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		f(e)
	}
}
