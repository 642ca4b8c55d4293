package bundleapi

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

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

// Entry is a bundle with what the cluster knows about it. [Entry.Message] is what is shown of it.
type Entry struct {
	Bundle     *bundle.Bundle
	Hosted     bool
	ChangeTime time.Time
	Freshness  ententev1.Freshness
	// Revision is that of the stored row.
	Revision uint64
}

// Message is the entry as the API shows it.
func (e Entry) Message() *ententev1.Bundle {
	c := e.Bundle.Content()
	digest := e.Bundle.Digest()
	m := &ententev1.Bundle{
		TrustDomain:     e.Bundle.TrustDomain().Name(),
		Hosted:          e.Hosted,
		Document:        e.Bundle.Marshal(),
		Sequence:        c.Sequence,
		X509Authorities: int32(len(c.X509Authorities)),
		JwtAuthorities:  int32(len(c.JWTAuthorities)),
		Digest:          hex.EncodeToString(digest[:]),
		Freshness:       cmp.Or(e.Freshness, ententev1.Freshness_FRESHNESS_FRESH),
		Revision:        e.Revision,
	}
	if c.RefreshHint != nil {
		m.RefreshHint = durationpb.New(*c.RefreshHint)
	}
	if !e.ChangeTime.IsZero() {
		m.ChangeTime = timestamppb.New(e.ChangeTime)
	}
	return m
}

// State is every bundle at one revision, in any order, each domain once.
type State struct {
	Revision uint64
	Bundles  []*ententev1.Bundle
}

// Catalog is where bundles are read from, in the form in which they are shown: parsed, ten thousand would take three times the memory. Its methods
// are called from many goroutines. A bundle is not changed by either side once it was handed over; a catalog that hands the same
// message out until the row changes saves its watchers from looking into it.
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
	// Follow calls fn with the present state, and again whenever a bundle or its freshness changed, until ctx ends or fn
	// returns an error, which it returns. Changes that come while fn runs are coalesced. It is called by
	// [Service.Run] alone, once at a time.
	Follow(ctx context.Context, fn func(State) error) error
}
