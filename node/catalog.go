package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority"
	"github.com/ententehq/entente/bundle/bundleapi"
	"github.com/ententehq/entente/federation"
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
func (c *catalog) Get(ctx context.Context, td spiffeid.TrustDomain, o bundleapi.ReadOptions) (bundleapi.Entry, error) {
	view, err := c.read(ctx, o)
	if err != nil {
		return bundleapi.Entry{}, err
	}
	entry, found, err := catalogEntry(view, td.Name())
	if err == nil && !found {
		err = bundleapi.ErrNotFound
	}
	return entry, err
}

// List implements [bundleapi.Catalog].
func (c *catalog) List(ctx context.Context, o bundleapi.ReadOptions) (bundleapi.State, error) {
	view, err := c.read(ctx, o)
	if err != nil {
		return bundleapi.State{}, err
	}
	entries, err := catalogEntries(view)
	if err != nil {
		return bundleapi.State{}, err
	}
	return stateOf(view.Revision(), entries), nil
}

func (c *catalog) read(ctx context.Context, o bundleapi.ReadOptions) (*raftstore.View, error) {
	return c.store.Read(ctx, raftstore.ReadOptions{Linearizable: o.Linearizable, MinRevision: raftstore.Revision(o.MinRevision)})
}

// Follow implements [bundleapi.Catalog]. A change costs reading the rows that it touched, not all of them.
func (c *catalog) Follow(ctx context.Context, fn func(bundleapi.State) error) error {
	for {
		view := c.store.View()
		entries, err := catalogEntries(view)
		if err != nil {
			return err
		}
		if err := fn(stateOf(view.Revision(), entries)); err != nil {
			return err
		}
		err = c.followFrom(ctx, view.Revision(), entries, fn)
		if !errors.Is(err, raftstore.ErrWatchRestart) {
			return err
		}
	}
}

func (c *catalog) followFrom(ctx context.Context, from raftstore.Revision, entries map[string]bundleapi.Entry, fn func(bundleapi.State) error) error {
	watch := c.store.Watch(trustPrefixes(), from)
	defer watch.Close()
	for {
		batch, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		view := c.store.View() // as new as the batch, or newer: later batches find nothing left to do
		changed := false
		for _, change := range batch.Changes {
			entry, found, err := catalogEntry(view, change.Key)
			if err != nil {
				return err
			}
			was, had := entries[change.Key]
			if found == had && was.Revision == entry.Revision && was.Freshness == entry.Freshness {
				continue
			}
			changed = true
			if !found {
				delete(entries, change.Key)
				continue
			}
			entries[change.Key] = entry
		}
		if !changed {
			continue
		}
		if err := fn(stateOf(view.Revision(), entries)); err != nil {
			return err
		}
	}
}

func stateOf(revision raftstore.Revision, entries map[string]bundleapi.Entry) bundleapi.State {
	s := bundleapi.State{Revision: uint64(revision), Entries: make([]bundleapi.Entry, 0, len(entries))}
	for _, e := range entries {
		s.Entries = append(s.Entries, e)
	}
	return s
}

func catalogEntries(view *raftstore.View) (map[string]bundleapi.Entry, error) {
	entries := make(map[string]bundleapi.Entry)
	for _, table := range []raftstore.Table[*statev1.Bundle]{authority.HostedBundles, federation.ForeignBundles} {
		for row, err := range table.All(view, "") {
			if err != nil {
				return nil, fmt.Errorf("list bundles: %w", err)
			}
			entry, found, err := catalogEntry(view, row.Key)
			if err != nil {
				return nil, err
			}
			if found {
				entries[row.Key] = entry
			}
		}
	}
	return entries, nil
}

// catalogEntry reads the bundle of one trust domain, with what is known of it in the same revision.
func catalogEntry(view *raftstore.View, name string) (bundleapi.Entry, bool, error) {
	row, hosted, err := authority.HostedBundles.Get(view, name)
	if err != nil {
		return bundleapi.Entry{}, false, err
	}
	freshness := ententev1.Freshness_FRESHNESS_FRESH
	if !hosted {
		trust, err := federation.TrustState(view, name)
		if err != nil {
			return bundleapi.Entry{}, false, err
		}
		var found bool
		if row, found, err = federation.ForeignBundles.Get(view, name); err != nil || !found || trust.State == federation.Suspended {
			return bundleapi.Entry{}, false, err
		}
		freshness = freshnessOf(trust.State)
	}
	parsed, err := parseRow(row, hosted)
	if err != nil {
		return bundleapi.Entry{}, false, err
	}
	return bundleapi.Entry{
		Bundle: parsed.bundle, Hosted: hosted, ChangeTime: row.Value.GetChangeTime().AsTime(),
		Freshness: freshness, Revision: uint64(row.Revision),
	}, true, nil
}

func freshnessOf(s federation.State) ententev1.Freshness {
	switch s {
	case federation.Fresh:
		return ententev1.Freshness_FRESHNESS_FRESH
	case federation.Stale:
		return ententev1.Freshness_FRESHNESS_STALE
	case federation.Expired:
		return ententev1.Freshness_FRESHNESS_EXPIRED
	default:
		return ententev1.Freshness_FRESHNESS_UNSPECIFIED
	}
}
