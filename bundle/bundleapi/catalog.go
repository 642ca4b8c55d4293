package bundleapi

import (
	"context"
	"errors"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

// ErrNotFound is what [Catalog.Get] returns for a domain that is neither hosted nor foreign here.
var ErrNotFound = errors.New("no such bundle")

// ReadOptions say which state of the cluster a read answers from.
type ReadOptions struct {
	// Linearizable asks for a state that holds every write acknowledged before; otherwise this member's is good.
	Linearizable bool
	// MinRevision is the least revision that will do; the catalog waits for it as long as the context lets it.
	MinRevision uint64
}

// Entry is a bundle with what the cluster knows about it.
type Entry struct {
	Bundle     *bundle.Bundle
	Hosted     bool
	ChangeTime time.Time
	Freshness  ententev1.Freshness
	// Revision is that of the stored row.
	Revision uint64
}

// State is every bundle at one revision, in any order, each domain once.
type State struct {
	Revision uint64
	Entries  []Entry
}

// Catalog is where bundles are read from. Its methods are called from many goroutines. Entries are not changed by
// either side once they were handed over; a catalog that hands the same *bundle.Bundle out until the row changes saves
// its watchers from looking into it.
//
// Errors other than [ErrNotFound] go to [Config.StatusError].
type Catalog interface {
	// Home is the domain that an empty name stands for.
	Home() spiffeid.TrustDomain
	// Get returns one bundle.
	Get(ctx context.Context, td spiffeid.TrustDomain, o ReadOptions) (Entry, error)
	// List returns all bundles.
	List(ctx context.Context, o ReadOptions) (State, error)
	// History returns the versions of one bundle. Its entries are read only.
	History(ctx context.Context, td spiffeid.TrustDomain, o ReadOptions) (History, error)
	// Follow calls fn with the present state, and again whenever a bundle or its freshness changed, until ctx ends or fn
	// returns an error, which it returns. Changes that come while fn runs are coalesced. It is called by
	// [Service.Run] alone, once at a time.
	Follow(ctx context.Context, fn func(State) error) error
}
