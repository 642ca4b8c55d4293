// Package mirror keeps the tables of federation in memory, in the form in which loops and streams need them: parsed
// relationships, the facts about stored bundles, and an index of hubs, agreements and peers.
//
// One goroutine feeds a [Mirror], with [Mirror.Load] and [Mirror.Apply]. Any goroutine reads it. Bundles themselves
// stay in the store.
package mirror

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// Entry is one relationship and the facts about its bundle.
type Entry struct {
	Rel     *relationship.Relationship
	Holding relationship.Holding
}

// Mirror has the tables in memory.
type Mirror struct {
	mu           sync.RWMutex
	entries      map[string]Entry
	index        index // of entries
	holdings     map[string]relationship.Holding
	attestations map[string]AttestationHolding // by their key
}

// AttestationHolding has the facts about a hub's attestation of a domain.
type AttestationHolding struct {
	TrustDomain, Hub    string
	revision            raftstore.Revision
	Version             relationship.Version
	RelationshipCreated time.Time
	X509Until           time.Time
	Expired             bool
	refused             bool
}

// NewAttestationHolding returns the facts about a stored attestation of a hub.
func NewAttestationHolding(row *statev1.HubBundle, revision raftstore.Revision) (AttestationHolding, error) {
	b, err := relationship.HubBundle(row)
	if err != nil {
		return AttestationHolding{}, err
	}
	held := relationship.NewHolding(b, time.Time{}, revision)
	return AttestationHolding{
		row.GetTrustDomain(), row.GetHub(), revision, held.Version(), row.GetRelationshipCreateTime().AsTime(),
		held.X509Until,
		row.GetX509Expired(), row.GetRefused() != "",
	}, nil
}

// New returns an empty mirror.
func New() *Mirror {
	return &Mirror{
		entries:      make(map[string]Entry),
		index:        newIndex(),
		holdings:     make(map[string]relationship.Holding),
		attestations: make(map[string]AttestationHolding),
	}
}

// Load replaces the contents by a view's state. A row that this version cannot read is reported and left out, so that
// it does not stop the others.
func (c *Mirror) Load(r raftstore.Reader, unreadable func(error)) error {
	entries, index, holdings := make(map[string]Entry), newIndex(), make(map[string]relationship.Holding)
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
		if rel, err := relationship.Parse(row.Value); err != nil {
			unreadable(fmt.Errorf("stored relationship with %s: %w", row.Key, err))
		} else {
			entries[row.Key] = Entry{rel, holdings[row.Key]}
			index.add(row.Key, rel)
		}
	}
	words := make(map[string]AttestationHolding)
	for row, err := range relationship.HubBundles.All(r, "") {
		if err != nil {
			return fmt.Errorf("read the attestations of hubs: %w", err)
		}
		if words[row.Key], err = NewAttestationHolding(row.Value, row.Revision); err != nil {
			unreadable(fmt.Errorf("stored attestation of %s by a hub: %w", row.Key, err))
			delete(words, row.Key)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries, c.index, c.holdings, c.attestations = entries, index, holdings, words
	return nil
}

// Apply applies the changes of one revision. It returns the trust domains that are affected, and the home trust domains
// of the peers that their relationships name or named.
func (c *Mirror) Apply(b raftstore.Batch, unreadable func(error)) (names, homes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range b.Changes {
		homes = append(homes, c.homeOf(change.Key)) // as it was; of a hub's word there is none by that key
		switch change.Table {
		case relationship.Relationships.Name():
			if was, ok := c.entries[change.Key]; ok {
				c.index.remove(change.Key, was.Rel)
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
			rel, err := relationship.Parse(row)
			if err != nil {
				unreadable(fmt.Errorf("stored relationship with %s: %w", change.Key, err))
				break
			}
			c.entries[change.Key] = Entry{Rel: rel}
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
			c.applyAttestation(change, b.Revision, unreadable)
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
			c.entries[name] = Entry{e.Rel, c.holdings[name]}
		}
		homes = append(homes, c.homeOf(name))
	}
	slices.Sort(homes)
	homes = slices.DeleteFunc(slices.Compact(homes), func(home string) bool { return home == "" })
	return names, homes
}

// applyAttestation applies a change of an attestation. c.mu is held.
func (c *Mirror) applyAttestation(change raftstore.Change, revision raftstore.Revision, unreadable func(error)) {
	delete(c.attestations, change.Key)
	if change.Value == nil {
		return
	}
	row, err := relationship.HubBundles.Decode(change.Value)
	if err == nil {
		c.attestations[change.Key], err = NewAttestationHolding(row, revision)
	}
	if err != nil {
		delete(c.attestations, change.Key)
		unreadable(fmt.Errorf("stored attestation of %s by a hub: %w", change.Key, err))
	}
}

// EachAttestation calls fn for each attestation, in no order, with the hub's relationship, or nil if there is none. fn
// must not call the mirror.
func (c *Mirror) EachAttestation(fn func(key string, w AttestationHolding, hub *relationship.Relationship)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for key, w := range c.attestations {
		fn(key, w, c.entries[w.Hub].Rel)
	}
}

// Get returns the entry of a relationship, and whether it exists.
func (c *Mirror) Get(name string) (Entry, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.entries[name]
	return e, ok
}

// Names returns the trust domains of all relationships, sorted.
func (c *Mirror) Names() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Sorted(maps.Keys(c.entries))
}

// PeerHome returns the home trust domain of a relationship's peer, or "" if it has none or is not in force.
func (e Entry) PeerHome() string {
	if e.Rel == nil || !e.Rel.InForce || e.Rel.Peer == nil {
		return ""
	}
	return e.Rel.Peer.Home.Name()
}
