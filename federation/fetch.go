package federation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

const (
	// maxKept bounds the connections that are kept open, each of some 25 KiB at this end.
	maxKept = 1024
	// keptWithin is up to which interval they are: servers close what is idle for a minute, and turns come up to a tenth later than the
	// interval. For longer ones a connection would lie idle, at both ends, for a hundred times as long as a handshake is worth.
	keptWithin = 50 * time.Second
)

// keepsConnection decides whether the connection to the endpoint of a bundle is kept for the next fetch.
func keepsConnection(current *bundle.Bundle, least time.Duration) bool {
	if current == nil {
		return false
	}
	hint, hinted := current.RefreshHint()
	return Interval(hint, hinted, least) <= keptWithin
}

// fetch asks one endpoint of a relationship. An https_spiffe endpoint is verified by the bundle of the basis and by no other.
func (m *Manager) fetch(ctx context.Context, name string, b basis, endpoint bundle.Endpoint) (bundle.Result, error) {
	config := m.config.Client
	b.relationship.Limits.bound(&config)
	config.Bundles = nil
	if endpoint.Profile() == bundle.HTTPSSPIFFE {
		if b.trust == nil {
			return bundle.Result{}, fmt.Errorf("fetch bundle of %s from %s: %w; create or resume a relationship with %s", name, endpoint.URL(), ErrNoTrust,
				endpoint.ID().TrustDomain())
		}
		config.Bundles = b.trust
	}
	if keepsConnection(b.current, m.config.MinRefresh) {
		config.Kept, config.KeptAs = m.connections, fmt.Sprintf("%s %d %s", name, b.relationship.Generation, endpoint.URL())
	}
	var fetched bundle.Result
	err := b.wait.on(ctx, func(ctx context.Context) (err error) {
		fetched, err = bundle.NewClient(config).Fetch(ctx, endpoint, m.etags.of(name, b, endpoint.URL()))
		return err
	})
	return fetched, err
}

// etags remembers by which tag an endpoint last served what is stored, so that it can answer that nothing has changed.
type etags struct {
	mu     sync.Mutex
	byName map[string]etag
}

// etag is good for one stored bundle, fetched from one URL under one decision.
type etag struct {
	url        string
	generation uint64
	revision   raftstore.Revision
	value      string
}

func newETags() *etags { return &etags{byName: make(map[string]etag)} }

func (e *etags) of(name string, b basis, url string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if tag := e.byName[name]; b.current != nil && tag.url == url && tag.generation == b.relationship.Generation && tag.revision == b.revision {
		return tag.value
	}
	return ""
}

func (e *etags) remember(name string, tag etag) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if tag.value == "" {
		delete(e.byName, name)
		return
	}
	e.byName[name] = tag
}

func (e *etags) forget(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byName, name)
}
