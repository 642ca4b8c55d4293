package trust

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

// MapEntry returns the bundle of a domain as it stands in the bundle map that this cluster serves, and whether it
// stands there. The map has the hosted domains, and those that the cluster attests to as a hub.
func (i *Index) MapEntry(r raftstore.Reader, td string) (bundle.MapEntry, bool, error) {
	d, err := i.Decide(r, td)
	if err != nil {
		return bundle.MapEntry{}, false, err
	}
	switch {
	case d.Origin == ByHosting:
		b, found, err := i.bundle(r, td, d)
		if err != nil || !found {
			return bundle.MapEntry{}, false, err
		}
		entry, err := bundle.NewMapEntry(b)
		return entry, err == nil, err
	case d.Origin == ByRelationship && i.Foreign.Attested(d.Relationship.Value):
		return i.mapEntries.of(r, td)
	}
	return bundle.MapEntry{}, false, nil
}

// AttestedEntries returns the entries of the foreign domains in the bundle map that this cluster serves, by name. Of
// ten thousand relationships and bundles it decodes only those whose rows changed since the last call. A domain whose
// rows cannot be read keeps its last entry, if it has one, and is named by the error, so that no foreign domain affects
// another one.
func (i *Index) AttestedEntries(r raftstore.Reader) (entries []bundle.MapEntry, unreadable error) {
	return i.mapEntries.all(r)
}

// mapEntries keeps the entries of the domains that this cluster attests to, and whether it attests to the others.
type mapEntries struct {
	index *Index

	mu       sync.Mutex
	attested map[string]attestedAt
	entries  map[string]entryAt
}

// attestedAt is whether the cluster attests to a domain, by one revision of the relationship.
type attestedAt struct {
	revision raftstore.Revision
	attested bool
}

// entryAt is the entry of a domain, by one revision of its bundle.
type entryAt struct {
	revision raftstore.Revision
	entry    bundle.MapEntry
}

func newMapEntries(i *Index) *mapEntries {
	return &mapEntries{index: i, entries: make(map[string]entryAt)}
}

func (m *mapEntries) all(r raftstore.Reader) (all []bundle.MapEntry, unreadable error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	attested, entries := make(map[string]attestedAt, len(m.attested)), make(map[string]entryAt, len(m.entries))
	for td, revision := range m.index.Foreign.Relationships.Revisions(r, "") {
		at, entry, found, err := m.domain(r, td, revision)
		if err != nil {
			unreadable = errors.Join(unreadable, fmt.Errorf("bundle of %s for the bundle map: %w", td, err))
			at = m.attested[td]
			entry, found = m.entries[td]
		}
		attested[td] = at
		if found {
			entries[td] = entry
			all = append(all, entry.entry)
		}
	}
	m.attested, m.entries = attested, entries
	return all, unreadable
}

// domain returns whether the cluster attests to the domain of a relationship, and its entry, if it has one.
func (m *mapEntries) domain(
	r raftstore.Reader, td string, revision raftstore.Revision,
) (at attestedAt, entry entryAt, found bool, err error) {
	at, known := m.attested[td]
	if !known || at.revision != revision {
		row, _, err := m.index.Foreign.Relationships.Get(r, td)
		if err != nil {
			return at, entry, false, err
		}
		at = attestedAt{revision, m.index.Foreign.Attested(row.Value)}
	}
	if !at.attested {
		return at, entry, false, nil
	}
	if hosted, err := m.index.Hosted.Hosts(r, td); err != nil || hosted {
		return at, entry, false, err
	}
	entry, found, err = m.read(r, td)
	return at, entry, found, err
}

func (m *mapEntries) of(r raftstore.Reader, td string) (bundle.MapEntry, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entry, found, err := m.read(r, td)
	if err != nil || !found {
		return bundle.MapEntry{}, false, err
	}
	m.entries[td] = entry // all drops it if it leaves the map
	return entry.entry, true, nil
}

// read returns the entry of a foreign domain, and whether the domain has a bundle.
func (m *mapEntries) read(r raftstore.Reader, td string) (entryAt, bool, error) {
	revision, found := m.index.Foreign.Bundles.RevisionOf(r, td)
	if entry, known := m.entries[td]; !found || known && entry.revision == revision {
		return entry, found, nil
	}
	row, found, err := m.index.Foreign.Bundles.Get(r, td)
	if err != nil || !found {
		return entryAt{}, false, err
	}
	b, err := Parse(row.Value)
	if err != nil {
		return entryAt{}, false, err
	}
	entry, err := bundle.NewMapEntry(b)
	return entryAt{revision, entry}, err == nil, err
}
