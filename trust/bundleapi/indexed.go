package bundleapi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

// followPace is the least time between two states that [Indexed.Follow] delivers. With ten thousand bundles each takes
// some milliseconds to compare, and a member that catches up applies thousands of changes in a second.
const followPace = 20 * time.Millisecond

// Indexed is the [Catalog] of a member: the bundles of its trust index. The bundle of a suspended relationship is
// stored, but not returned to anybody.
type Indexed struct {
	Store *raftstore.Store
	Index *trust.Index
	// Domain is the home domain of the cluster.
	Domain spiffeid.TrustDomain
	// Versions returns the history of a domain's bundle, or [ErrNotFound].
	Versions func(view *raftstore.View, td string, d trust.Decision) (History, error)
}

// Home implements [Catalog].
func (c *Indexed) Home() spiffeid.TrustDomain { return c.Domain }

// Get implements [Catalog].
func (c *Indexed) Get(ctx context.Context, td spiffeid.TrustDomain, o ReadOptions) (*ententev1.Bundle, error) {
	view, err := c.read(ctx, o)
	if err != nil {
		return nil, err
	}
	b, found, err := c.Index.Message(view, td.Name())
	if err == nil && !found {
		err = c.missing(view, td)
	}
	return b, err
}

// missing returns why there is no bundle of a domain: [ErrNotFound], with the state of one that is withheld or pending.
func (c *Indexed) missing(r raftstore.Reader, td spiffeid.TrustDomain) error {
	d, err := c.Index.Decide(r, td.Name())
	switch {
	case err != nil:
		return err
	case d.Status.State.Withheld(), d.Status.State == standing.Pending:
		return missingError{d.Sentence(td)}
	}
	return ErrNotFound
}

// List implements [Catalog].
func (c *Indexed) List(ctx context.Context, o ReadOptions) (State, error) {
	view, err := c.read(ctx, o)
	if err != nil {
		return State{}, err
	}
	bundles, err := c.Index.Messages(view)
	if err != nil {
		return State{}, err
	}
	return stateOf(view.Revision(), bundles), nil
}

// History implements [Catalog].
func (c *Indexed) History(ctx context.Context, td spiffeid.TrustDomain, o ReadOptions) (History, error) {
	view, err := c.read(ctx, o)
	if err != nil {
		return History{}, err
	}
	d, err := c.Index.Decide(view, td.Name())
	if err != nil {
		return History{}, err
	}
	if d.Origin == trust.None {
		return History{}, ErrNotFound
	}
	h, err := c.Versions(view, td.Name(), d)
	h.Revision, h.Hosted = uint64(view.Revision()), d.Origin == trust.ByHosting
	return h, err
}

func (c *Indexed) read(ctx context.Context, o ReadOptions) (*raftstore.View, error) {
	return c.Store.Read(ctx, raftstore.ReadOptions{
		Linearizable: o.Linearizable, MinRevision: raftstore.Revision(o.MinRevision),
	})
}

// Follow implements [Catalog]. A change costs reading the rows that it affects, not all of them.
func (c *Indexed) Follow(ctx context.Context, fn func(State) error) error {
	keys := feed.Keys[string]{
		Store: c.Store, Over: c.Index.Over(), Affected: c.affected, Pace: feed.Pace{Least: followPace},
	}
	var bundles map[string]*ententev1.Bundle
	return keys.Run(ctx, feed.NewSet[string](), func(view *raftstore.View, a feed.Affected[string]) (err error) {
		changed := a.All
		if a.All {
			bundles, err = c.Index.Messages(view)
		} else {
			changed, err = c.update(view, bundles, a.Keys)
		}
		if err != nil || !changed {
			return err
		}
		return fn(stateOf(view.Revision(), bundles))
	})
}

// affected adds the domains that a change affects. The relationship with a hub affects all domains that the hub attests
// to.
func (c *Indexed) affected(view *raftstore.View, change raftstore.Change, set *feed.Set[string]) error {
	set.Add(trust.DomainOf(change.Key))
	relationships := c.Index.Foreign.Relationships
	if change.Table != relationships.Name() {
		return nil
	}
	if change.Value != nil {
		row, err := relationships.Decode(change.Value)
		if err != nil {
			return fmt.Errorf("relationship with %s: %w", change.Key, err)
		}
		if row.GetHub() == nil {
			return nil // if the cluster was a hub until now, its attestations are deleted row by row
		}
	}
	set.Add(c.Index.AttestedBy(view, change.Key)...)
	return nil
}

// update brings bundles up to date where rows changed, and reports whether that changed a message.
func (c *Indexed) update(
	view *raftstore.View, bundles map[string]*ententev1.Bundle, names map[string]struct{},
) (changed bool, err error) {
	for name := range names {
		b, found, err := c.Index.Message(view, name)
		if err != nil {
			return changed, err
		}
		was, had := bundles[name]
		switch {
		case found == had && (was == b || proto.Equal(was, b)):
			continue
		case found:
			bundles[name] = b
		default:
			delete(bundles, name)
		}
		changed = true
	}
	return changed, nil
}

func stateOf(revision raftstore.Revision, bundles map[string]*ententev1.Bundle) State {
	messages := make([]*ententev1.Bundle, 0, len(bundles))
	return State{Revision: uint64(revision), Bundles: slices.AppendSeq(messages, maps.Values(bundles))}
}
