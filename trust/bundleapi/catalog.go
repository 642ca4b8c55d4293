package bundleapi

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
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

// State is every bundle at one revision, in any order, each domain once.
type State struct {
	Revision uint64
	Bundles  []*ententev1.Bundle
}

// Catalog is where bundles are read from, in the form in which they are shown: parsed, ten thousand would take three
// times the memory. Its methods are called from many goroutines. A bundle is not changed by either side once it was
// handed over; a catalog that hands the same message out until the row changes saves its watchers from looking into it.
//
// Errors other than [ErrNotFound] go to [Config.StatusError].
type Catalog interface {
	// Home is the domain that an empty name stands for.
	Home() spiffeid.TrustDomain
	// Get returns one bundle.
	Get(ctx context.Context, td spiffeid.TrustDomain, o ReadOptions) (*ententev1.Bundle, error)
	// List returns all bundles.
	List(ctx context.Context, o ReadOptions) (State, error)
	// History returns the versions of one bundle. Its entries are read only.
	History(ctx context.Context, td spiffeid.TrustDomain, o ReadOptions) (History, error)
	// Follow calls fn with the present state, and again whenever a bundle or its freshness changed, until ctx ends or
	// fn returns an error, which it returns. Changes that come while fn runs are coalesced. It is called by
	// [Service.Run] alone, once at a time.
	Follow(ctx context.Context, fn func(State) error) error
}
