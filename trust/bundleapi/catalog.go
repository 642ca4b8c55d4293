package bundleapi

import (
	"context"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// ErrNotFound is the error of [Catalog.Get] for a domain that has no bundle in use.
var ErrNotFound = errors.New("no such bundle")

// missingError is [ErrNotFound] for a domain whose bundle is withheld or has not arrived.
type missingError struct{ because string }

func (e missingError) Error() string { return ErrNotFound.Error() + ": " + e.because }

// Is implements the interface that errors.Is uses.
func (missingError) Is(target error) bool { return target == ErrNotFound }

// ReadOptions select the state of the cluster that a read answers from.
type ReadOptions struct {
	// Linearizable requires a state with every write that was acknowledged before. Without it, this member's state is
	// used.
	Linearizable bool
	// MinRevision is the least revision of the state. The catalog waits for it until the context ends.
	MinRevision uint64
}

// State has every bundle at one revision, in any order, each domain once.
type State struct {
	Revision uint64
	Bundles  []*ententev1.Bundle
}

// Catalog supplies the bundles in the form of the API: parsed, ten thousand would need three times the memory. Its
// methods are called from many goroutines. Neither side changes a bundle afterwards. A catalog that returns the same
// message until the row changes saves its watchers a comparison.
//
// Errors other than [ErrNotFound] go through [raftstore.StatusError].
type Catalog interface {
	// Home returns the domain that an empty name stands for.
	Home() spiffeid.TrustDomain
	// Get returns one bundle.
	Get(ctx context.Context, td spiffeid.TrustDomain, o ReadOptions) (*ententev1.Bundle, error)
	// List returns all bundles.
	List(ctx context.Context, o ReadOptions) (State, error)
	// History returns the versions of one bundle, which must not be changed.
	History(ctx context.Context, td spiffeid.TrustDomain, o ReadOptions) (History, error)
	// Follow calls fn with the present state, and again whenever a bundle or its freshness changed, until ctx ends or
	// fn returns an error, which it returns. Changes that arrive while fn runs lead to one more call. [Service.Run]
	// alone calls it, once at a time.
	Follow(ctx context.Context, fn func(State) error) error
}
