package federation

import (
	"fmt"
	"slices"
	"sync"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// entry is one relationship with what is held for it.
type entry struct {
	rel     *relationship.Relationship
	holding relationship.Holding
}

// catalog mirrors both tables in the form that the loops work on. One goroutine feeds it; any can read it.
type catalog struct {
	mu       sync.RWMutex
	entries  map[string]entry
	index    index // of entries
	holdings map[string]relationship.Holding
	words    map[string]wordHolding // by their key
}

// wordHolding is what the loops need to know of a hub's word on a domain.
type wordHolding struct {
	td, hub   string
	revision  raftstore.Revision
	version   relationship.Version
	agreed    time.Time
	x509Until time.Time
	expired   bool
	refused   bool
}

func wordHoldingOf(row *statev1.HubBundle, revision raftstore.Revision) (wordHolding, error) {
	b, err := relationship.HubBundle(row)
	if err != nil {
		return wordHolding{}, err
	}
	held := relationship.NewHolding(b, time.Time{}, revision)
	return wordHolding{
		row.GetTrustDomain(), row.GetHub(), revision, held.Version(), row.GetAgreed().AsTime(), held.X509Until, row.GetX509Expired(), row.GetRefused() != "",
	}, nil
}

func newCatalog() *catalog {
	return &catalog{entries: make(map[string]entry), index: newIndex(), holdings: make(map[string]relationship.Holding), words: make(map[string]wordHolding)}
}

// load replaces everything by a view's state. A row that this version cannot read is reported and left out, so that one
// of them does not stop the others.
func (c *catalog) load(r raftstore.Reader, unreadable func(error)) error {
	entries, index, holdings := make(map[string]entry), newIndex(), make(map[string]relationship.Holding)
	for row, err := range relationship.ForeignBundles.All(r, "") {
		if err != nil {
			return fmt.Errorf("read the foreign bundles: %w", err)
		}
		if h, err := relationship.ReadHolding(row.Value, row.Revision); err != nil {
			unreadable(fmt.Errorf("stored bundle of %s: %w", row.Key, err))
		} else {
			holdings[row.Key] = h
		}
	}
	for row, err := range relationship.Relationships.All(r, "") {
		if err != nil {
			return fmt.Errorf("read the relationships: %w", err)
		}
		if rel, err := relationship.ParseRelationship(row.Value); err != nil {
			unreadable(fmt.Errorf("stored relationship with %s: %w", row.Key, err))
		} else {
			entries[row.Key] = entry{rel, holdings[row.Key]}
			index.add(row.Key, rel)
		}
	}
	words := make(map[string]wordHolding)
	for row, err := range relationship.HubBundles.All(r, "") {
		if err != nil {
			return fmt.Errorf("read what hubs say: %w", err)
		}
		if words[row.Key], err = wordHoldingOf(row.Value, row.Revision); err != nil {
			unreadable(fmt.Errorf("stored word of a hub on %s: %w", row.Key, err))
			delete(words, row.Key)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries, c.index, c.holdings, c.words = entries, index, holdings, words
	return nil
}

// apply takes over what one revision changed, and returns the trust domains that it concerns, with the home trust domains of the peers
// that their relationships name or named.
func (c *catalog) apply(b raftstore.Batch, unreadable func(error)) (names, homes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range b.Changes {
		homes = append(homes, c.homeOf(change.Key)) // as it was; of a hub's word there is none by that key
		switch change.Table {
		case relationship.Relationships.Name():
			if was, ok := c.entries[change.Key]; ok {
				c.index.remove(change.Key, was.rel)
			}
			delete(c.entries, change.Key)
			if change.Value == nil {
				break
			}
			row, err := relationship.Relationships.Decode(change.Value)
			if err != nil {
				unreadable(fmt.Errorf("stored relationship with %s: %w", change.Key, err))
				break
			}
			rel, err := relationship.ParseRelationship(row)
			if err != nil {
				unreadable(fmt.Errorf("stored relationship with %s: %w", change.Key, err))
				break
			}
			c.entries[change.Key] = entry{rel: rel}
			c.index.add(change.Key, rel)
		case relationship.ForeignBundles.Name():
			delete(c.holdings, change.Key)
			if change.Value == nil {
				break
			}
			h, err := relationship.DecodeHolding(change.Value, b.Revision)
			if err != nil {
				unreadable(fmt.Errorf("stored bundle of %s: %w", change.Key, err))
				break
			}
			c.holdings[change.Key] = h
		case relationship.HubBundles.Name():
			c.applyWord(change, b.Revision, unreadable)
			continue
		default:
			continue
		}
		names = append(names, change.Key)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for _, name := range names {
		if e, ok := c.entries[name]; ok {
			c.entries[name] = entry{e.rel, c.holdings[name]}
		}
		homes = append(homes, c.homeOf(name))
	}
	slices.Sort(homes)
	homes = slices.DeleteFunc(slices.Compact(homes), func(home string) bool { return home == "" })
	return names, homes
}

// applyWord takes over a change of what a hub says. c.mu is held.
func (c *catalog) applyWord(change raftstore.Change, revision raftstore.Revision, unreadable func(error)) {
	delete(c.words, change.Key)
	if change.Value == nil {
		return
	}
	row, err := relationship.HubBundles.Decode(change.Value)
	if err == nil {
		c.words[change.Key], err = wordHoldingOf(row, revision)
	}
	if err != nil {
		delete(c.words, change.Key)
		unreadable(fmt.Errorf("stored word of a hub on %s: %w", change.Key, err))
	}
}

// eachWord calls fn for what each hub says of each domain, in no order, with the hub's relationship; nil: there is none. fn must not come
// back to the catalog.
func (c *catalog) eachWord(fn func(key string, w wordHolding, hub *relationship.Relationship)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for key, w := range c.words {
		fn(key, w, c.entries[w.hub].rel)
	}
}

func (c *catalog) get(name string) (entry, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.entries[name]
	return e, ok
}

// set replaces what is mirrored of one relationship, or removes it where the entry holds none. Tests use it to play a store.
func (c *catalog) set(name string, e entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.entries[name]; ok {
		c.index.remove(name, was.rel)
	}
	delete(c.entries, name)
	if e.rel != nil {
		c.entries[name] = e
		c.index.add(name, e.rel)
	}
}

func (c *catalog) names() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	names := make([]string, 0, len(c.entries))
	for name := range c.entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// peerHome is the home trust domain of a relationship's peer; empty: it has none, or is not in force, so that no stream serves it.
func (e entry) peerHome() string {
	if e.rel == nil || !e.rel.InForce || e.rel.Peer == nil {
		return ""
	}
	return e.rel.Peer.Home.Name()
}
