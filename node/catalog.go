package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle/bundleapi"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// catalog is what the bundle service reads from: the hosted bundles, and the foreign ones that may be relied on. The
// bundle of a suspended relationship is kept, but handed out to nobody.
type catalog struct {
	store *raftstore.Store
	home  spiffeid.TrustDomain
}

// Home implements [bundleapi.Catalog].
func (c *catalog) Home() spiffeid.TrustDomain { return c.home }

// Get implements [bundleapi.Catalog].
func (c *catalog) Get(ctx context.Context, td spiffeid.TrustDomain, o bundleapi.ReadOptions) (*ententev1.Bundle, error) {
	view, err := c.read(ctx, o)
	if err != nil {
		return nil, err
	}
	b, found, err := catalogBundle(view, td.Name())
	if err == nil && !found {
		err = bundleapi.ErrNotFound
	}
	return b, err
}

// List implements [bundleapi.Catalog].
func (c *catalog) List(ctx context.Context, o bundleapi.ReadOptions) (bundleapi.State, error) {
	view, err := c.read(ctx, o)
	if err != nil {
		return bundleapi.State{}, err
	}
	bundles, err := catalogBundles(view)
	if err != nil {
		return bundleapi.State{}, err
	}
	return stateOf(view.Revision(), bundles), nil
}

func (c *catalog) read(ctx context.Context, o bundleapi.ReadOptions) (*raftstore.View, error) {
	return c.store.Read(ctx, raftstore.ReadOptions{Linearizable: o.Linearizable, MinRevision: raftstore.Revision(o.MinRevision)})
}

// Follow implements [bundleapi.Catalog]. A change costs reading the rows that it touched, not all of them.
func (c *catalog) Follow(ctx context.Context, fn func(bundleapi.State) error) error {
	for {
		view := c.store.View()
		bundles, err := catalogBundles(view)
		if err != nil {
			return err
		}
		if err := fn(stateOf(view.Revision(), bundles)); err != nil {
			return err
		}
		err = c.followFrom(ctx, view.Revision(), bundles, fn)
		if !errors.Is(err, raftstore.ErrWatchRestart) {
			return err
		}
	}
}

// followPace is the least time between two states that [catalog.Follow] hands on. With ten thousand bundles each takes
// some milliseconds to compare, and a member that catches up applies thousands of changes in a second.
const followPace = 20 * time.Millisecond

func (c *catalog) followFrom(ctx context.Context, from raftstore.Revision, bundles map[string]*ententev1.Bundle, fn func(bundleapi.State) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	touched := make(chan map[string]bool, 1) // the trust domains whose rows changed since they were last taken out
	ended := make(chan error, 1)
	go func() { ended <- c.collect(ctx, from, touched) }()
	pace := time.NewTicker(followPace)
	defer pace.Stop()
	for {
		var names map[string]bool
		select {
		case names = <-touched:
		case err := <-ended:
			return err
		}
		view := c.store.View() // as new as the changes, or newer: later ones find nothing left to do
		changed, err := update(view, bundles, names)
		if err == nil && changed {
			err = fn(stateOf(view.Revision(), bundles))
		}
		if err != nil {
			cancel()
			<-ended //nolint:errcheck // it was told to end; err says why
			return err
		}
		<-pace.C
	}
}

// collect puts the names of what changed where followFrom takes them, adding to those that it has not taken yet.
func (c *catalog) collect(ctx context.Context, from raftstore.Revision, touched chan map[string]bool) error {
	watch := c.store.Watch(trustPrefixes(), from)
	defer watch.Close()
	for {
		batch, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		names := map[string]bool{}
		select {
		case names = <-touched:
		default:
		}
		for _, change := range batch.Changes {
			if err := c.touch(change, names); err != nil {
				return err
			}
		}
		touched <- names // empty: this goroutine alone fills it
	}
}

// touch adds the domains that a change is about. A hub's relationship is about all that it brings.
func (c *catalog) touch(change raftstore.Change, names map[string]bool) error {
	name, _, _ := strings.Cut(change.Key, "/") // of hubs' words the keys are DOMAIN/HUB
	names[name] = true
	if change.Table != relationship.Relationships.Name() {
		return nil
	}
	if change.Value != nil {
		row, err := relationship.Relationships.Decode(change.Value)
		if err != nil {
			return fmt.Errorf("relationship with %s: %w", change.Key, err)
		}
		if row.GetHub() == nil {
			return nil // and if it was one until now, what it brought goes row by row
		}
	}
	brought, err := relationship.AttestedBy(c.store.View(), change.Key)
	for _, td := range brought {
		names[td] = true
	}
	return err
}

// update brings bundles up to date where rows changed, and says whether that made a difference.
func update(view *raftstore.View, bundles map[string]*ententev1.Bundle, names map[string]bool) (changed bool, err error) {
	for name := range names {
		b, found, err := catalogBundle(view, name)
		if err != nil {
			return changed, err
		}
		was, had := bundles[name]
		switch {
		case found == had && was.GetRevision() == b.GetRevision() && was.GetFreshness() == b.GetFreshness():
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

func stateOf(revision raftstore.Revision, bundles map[string]*ententev1.Bundle) bundleapi.State {
	return bundleapi.State{Revision: uint64(revision), Bundles: slices.AppendSeq(make([]*ententev1.Bundle, 0, len(bundles)), maps.Values(bundles))}
}

func catalogBundles(view *raftstore.View) (map[string]*ententev1.Bundle, error) {
	bundles := make(map[string]*ententev1.Bundle)
	for _, table := range []raftstore.Table[*statev1.Bundle]{table.HostedBundles, relationship.ForeignBundles} {
		for row, err := range table.All(view, "") {
			if err != nil {
				return nil, fmt.Errorf("list bundles: %w", err)
			}
			b, found, err := catalogBundle(view, row.Key)
			if err != nil {
				return nil, err
			}
			if found {
				bundles[row.Key] = b
			}
		}
	}
	for name, err := range relationship.HubDomains(view) {
		if err != nil {
			return nil, fmt.Errorf("list bundles: %w", err)
		}
		b, found, err := catalogBundle(view, name)
		if err != nil {
			return nil, err
		}
		if found {
			bundles[name] = b
		}
	}
	return bundles, nil
}

// catalogBundle reads the bundle of one trust domain, with what is known of it in the same revision.
func catalogBundle(view *raftstore.View, name string) (*ententev1.Bundle, bool, error) {
	row, hosted, err := table.HostedBundles.Get(view, name)
	if err != nil {
		return nil, false, err
	}
	freshness := ententev1.Freshness_FRESHNESS_FRESH
	var rel raftstore.Row[*statev1.Relationship]
	if !hosted {
		trusted, err := relationship.TrustState(view, name)
		if err != nil {
			return nil, false, err
		}
		var found bool
		if row, found, err = relationship.ForeignBundles.Get(view, name); err == nil && !found {
			row, _, found, err = byHub(view, name)
		}
		if err != nil || !found || trusted.State.Withheld() {
			return nil, false, err
		}
		if rel, _, err = relationship.Relationships.Get(view, name); err != nil {
			return nil, false, err
		}
		freshness = trusted.State.Freshness()
	}
	parsed, err := parseRow(row, hosted)
	if err != nil {
		return nil, false, err
	}
	b := parsed.bundle
	if !hosted {
		if b, err = relationship.Relied(rel.Value, b); err != nil {
			return nil, false, fmt.Errorf("what is relied on of the bundle of %s: %w", name, err)
		}
	}
	return bundleapi.Entry{
		Bundle: b, Hosted: hosted, ChangeTime: row.Value.GetChangeTime().AsTime(),
		Freshness: freshness, Revision: uint64(row.Revision),
	}.Message(), true, nil
}
