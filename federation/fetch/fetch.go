package fetch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

const (
	// keptWithin is the longest interval for which the connection to an endpoint is kept for the next fetch. For longer
	// ones an idle connection costs both ends more than a handshake.
	keptWithin = 10 * time.Minute
	// mostKept bounds the connections that are kept. Each takes 11 KiB at this end.
	mostKept = 10_000
)

// maxKept bounds the connections that are kept to half of the files that this process can have open.
func maxKept() int { return min(endpoint.OpenFiles()/2, mostKept) }

// fetch fetches from one endpoint of a relationship. Only the bundle of the basis verifies an https_spiffe endpoint.
func (p *Poller) fetch(
	ctx context.Context,
	name string,
	b intake.Basis,
	ep endpoint.Remote,
	w *Wait,
) (endpoint.Result, error) {
	config := p.config.Client
	b.Rel.Configure(&config, p.config.Route)
	config.Bundles = nil
	if ep.Profile() == endpoint.HTTPSSPIFFE {
		if b.Trust == nil {
			return endpoint.Result{}, fmt.Errorf(
				"fetch bundle of %s from %s: %w; create or resume a relationship with %s",
				name,
				ep.URL(),
				relationship.ErrNoTrust,
				ep.ID().TrustDomain(),
			)
		}
		config.Bundles = b.Trust
	}
	if e, ok := p.config.Mirror.Get(name); ok && p.config.Intake.Interval(e.Rel.PollInterval, e.Holding) <= keptWithin {
		config.Kept, config.KeptAs = p.connections, fmt.Sprintf("%s %d %s", name, b.Rel.Generation, ep.URL())
		// A bundle that an operator gave has no revision. The generation stands for it.
		config.Version = max(1, uint64(b.TrustRevision))
	}
	var fetched endpoint.Result
	err := w.On(ctx, func(ctx context.Context) (err error) {
		fetched, err = endpoint.NewClient(config).Fetch(ctx, ep, p.etags.of(name, b, ep.URL()))
		return err
	})
	return fetched, err
}

// etags remembers the tag under which an endpoint last served the stored bundle, so that the endpoint can answer that
// nothing has changed.
type etags struct {
	mu     sync.Mutex
	byName map[string]etag
}

// etag is valid for one stored bundle, fetched from one URL under one generation of the relationship.
type etag struct {
	url        string
	generation uint64
	revision   raftstore.Revision
	value      string
}

func newETags() *etags { return &etags{byName: make(map[string]etag)} }

func (e *etags) of(name string, b intake.Basis, url string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	tag := e.byName[name]
	if b.Current != nil && tag.url == url && tag.generation == b.Rel.Generation && tag.revision == b.Revision {
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
