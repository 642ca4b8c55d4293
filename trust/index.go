package trust

import (
	"errors"
	"fmt"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust/standing"
)

// maxDomains bounds the trust domains whose bundles and statements the index keeps parsed: those that are read most.
const maxDomains = 1024

// Index answers every question about trust on a member: about callers to the TLS port, about instances to routing,
// about roots to xDS, about bundles to the API, the bundle endpoint and the streams to peers. So all of them agree. It
// makes each form of a bundle once a revision. It is safe for concurrent use.
type Index struct {
	Sources

	store      atomic.Pointer[raftstore.Store]
	parsed     *lru.Cache[string, parsedBundle]
	messages   *messages
	mapEntries *mapEntries
	statements *statements
}

// parsedBundle is a stored bundle in the revision of its row.
type parsedBundle struct {
	origin   Origin
	hub      string
	revision raftstore.Revision
	bundle   *bundle.Bundle
}

// NewIndex returns an index over sources. [Index.Open] gives it the store.
func NewIndex(s Sources) *Index {
	i := &Index{Sources: s, parsed: newLRU[parsedBundle]()}
	i.messages, i.mapEntries, i.statements = newMessages(i), newMapEntries(i), newStatements(s.Hosted)
	return i
}

func newLRU[V any]() *lru.Cache[string, V] {
	c, err := lru.New[string, V](maxDomains)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	return c
}

// Open gives the index the store that [Index.GetX509BundleForTrustDomain] reads. It is separate from [NewIndex] because
// the TLS port needs the index before there is a store.
func (i *Index) Open(s *raftstore.Store) { i.store.Store(s) }

// State returns the state of a domain for X509-SVIDs, which connections and so routes depend on.
func (i *Index) State(r raftstore.Reader, td spiffeid.TrustDomain) (standing.State, error) {
	d, err := i.Decide(r, td.Name())
	return d.Status.X509, err
}

// Prefixes returns the prefixes that [Index.State] depends on.
func (i *Index) Prefixes() []raftstore.Prefix { return i.Over() }

// Bundle returns the bundle that counts for a domain, whether or not it can be used at the moment, and whether there is
// one.
func (i *Index) Bundle(r raftstore.Reader, td string) (*bundle.Bundle, bool, error) {
	d, err := i.Decide(r, td)
	if err != nil {
		return nil, false, err
	}
	return i.bundle(r, td, d)
}

// bundle returns the bundle that a decision on td points to, parsed at most once a revision.
func (i *Index) bundle(r raftstore.Reader, td string, d Decision) (*bundle.Bundle, bool, error) {
	revision, found := i.revision(r, td, d)
	if !found {
		return nil, false, nil
	}
	known, ok := i.parsed.Get(td)
	if ok && known.revision == revision && known.origin == d.Origin && known.hub == d.Attestation.Hub {
		return known.bundle, true, nil
	}
	row, found, err := i.Stored(r, td, d)
	if err != nil || !found {
		return nil, false, err
	}
	b, err := Parse(row.Value)
	if err != nil {
		return nil, false, fmt.Errorf("stored bundle of %s: %w", td, err)
	}
	i.parsed.Add(td, parsedBundle{d.Origin, d.Attestation.Hub, revision, b})
	return b, true, nil
}

// GetX509BundleForTrustDomain implements [x509bundle.Source]: it returns the authorities that callers are verified
// with.
func (i *Index) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	view := i.store.Load().View()
	d, err := i.Decide(view, td.Name())
	if err != nil {
		return nil, err
	}
	if !d.Status.X509.Verifiable() {
		return nil, errors.New(d.Status.X509.Sentence(td))
	}
	b, found, err := i.bundle(view, td.Name(), d)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("%s has no bundle yet", td.Name())
	}
	return b.GetX509BundleForTrustDomain(td)
}
