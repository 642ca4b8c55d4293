package node

import (
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// vouchedBundles are the foreign bundles that the cluster vouches for, as they were last read. Of ten thousand relationships and bundles
// only those are decoded whose rows have changed since.
type vouchedBundles struct {
	// vouches is of every relationship, bundles of those that the cluster vouches for.
	vouches map[string]vouchesRead
	bundles map[string]vouchedRead
}

// vouchesRead is whether the cluster vouches for a domain, by one revision of the relationship's row.
type vouchesRead struct {
	revision raftstore.Revision
	vouches  bool
}

// vouchedRead is a foreign bundle as it stands in the map, at one revision of its row.
type vouchedRead struct {
	revision raftstore.Revision
	vouched  bundle.MapEntry
}

// read returns them in the order of their domains' names. A hosted domain is never one of them.
func (b *vouchedBundles) read(v *raftstore.View) ([]bundle.MapEntry, error) {
	vouches, bundles := make(map[string]vouchesRead, len(b.vouches)), map[string]vouchedRead{}
	var all []bundle.MapEntry
	for name, revision := range relationship.Relationships.Revisions(v, "") {
		rel, known := b.vouches[name]
		if !known || rel.revision != revision {
			row, _, err := relationship.Relationships.Get(v, name)
			if err != nil {
				return nil, err
			}
			rel = vouchesRead{revision, relationship.Vouches(row.Value)}
		}
		vouches[name] = rel
		if !rel.vouches {
			continue
		}
		if hosted, err := table.Hosts(v, name); err != nil {
			return nil, err
		} else if hosted {
			continue
		}
		entry, found, err := b.vouched(v, name)
		if err != nil {
			return nil, err
		}
		if found {
			bundles[name] = entry
			all = append(all, entry.vouched)
		}
	}
	b.vouches, b.bundles = vouches, bundles
	return all, nil
}

// vouched is the bundle of one domain, and whether there is one.
func (b *vouchedBundles) vouched(v *raftstore.View, name string) (vouchedRead, bool, error) {
	revision, found := relationship.ForeignBundles.RevisionOf(v, name)
	if entry, known := b.bundles[name]; !found || known && entry.revision == revision {
		return entry, found, nil
	}
	stored, found, err := relationship.ForeignBundles.Get(v, name)
	if err != nil || !found {
		return vouchedRead{}, false, err
	}
	parsed, err := parseRow(stored, false)
	if err != nil {
		return vouchedRead{}, false, err
	}
	entry := vouchedRead{revision: revision}
	entry.vouched, err = bundle.NewMapEntry(parsed.bundle)
	return entry, err == nil, err
}
