package endpoint

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ententehq/entente/bundle"
)

// foreign are the bundles of foreign domains that a hub attests to. A hub can have ten thousand, of which few are read
// alone: each is rendered at its first request.
type foreign struct {
	entries   []bundle.MapEntry // by name
	documents []atomic.Pointer[cachedDocument]
}

// newForeign returns the bundles of entries, which are ordered by name.
func newForeign(entries []bundle.MapEntry) foreign {
	return foreign{entries, make([]atomic.Pointer[cachedDocument], len(entries))}
}

// find returns the document at a path, or nil.
func (f foreign) find(path string) *cachedDocument {
	name, ok := strings.CutPrefix(path, "/bundles/")
	if !ok {
		return nil
	}
	i, found := slices.BinarySearchFunc(f.entries, name, func(v bundle.MapEntry, name string) int {
		return cmp.Compare(v.TrustDomain.Name(), name)
	})
	if !found {
		return nil
	}
	if known := f.documents[i].Load(); known != nil {
		return known
	}
	// Two requests at once render the same bytes.
	a := newCachedDocument(f.entries[i].Alone())
	f.documents[i].Store(a)
	return a
}
