package federation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

const (
	// keptWithin is up to which interval the connection to an endpoint is kept for the next fetch. For longer ones it would lie idle, at both
	// ends, for more than a handshake is worth.
	keptWithin = 10 * time.Minute
	// mostKept bounds the connections that are kept, and with it what they take: 11 KiB each at this end.
	mostKept = 10_000
)

// maxKept is how many connections are kept at most: of the files that this process can have open, half are for all else.
func maxKept() int { return min(endpoint.OpenFiles()/2, mostKept) }

// fetch asks one endpoint of a relationship. An https_spiffe endpoint is verified by the bundle of the basis and by no other.
func (m *Manager) fetch(ctx context.Context, name string, b basis, ep endpoint.Remote) (endpoint.Result, error) {
	config := m.config.Client
	b.Rel.Limits.Bound(&config)
	config.Bundles = nil
	if ep.Profile() == endpoint.HTTPSSPIFFE {
		if b.Trust == nil {
			return endpoint.Result{}, fmt.Errorf("fetch bundle of %s from %s: %w; create or resume a relationship with %s", name, ep.URL(), relationship.ErrNoTrust,
				ep.ID().TrustDomain())
		}
		config.Bundles = b.Trust
	}
	if e, ok := m.catalog.Get(name); ok && m.intake.Interval(e.Holding) <= keptWithin {
		config.Kept, config.KeptAs = m.connections, fmt.Sprintf("%s %d %s", name, b.Rel.Generation, ep.URL())
		config.Version = max(1, uint64(b.TrustRevision)) // an operator's bundle has no revision; the generation stands for it
	}
	var fetched endpoint.Result
	err := b.wait.on(ctx, func(ctx context.Context) (err error) {
		fetched, err = endpoint.NewClient(config).Fetch(ctx, ep, m.etags.of(name, b, ep.URL()))
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
	if tag := e.byName[name]; b.Current != nil && tag.url == url && tag.generation == b.Rel.Generation && tag.revision == b.Revision {
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
