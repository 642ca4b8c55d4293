package hub

import (
	"cmp"
	"slices"
	"sync"

	"github.com/ententehq/entente/federation/relationship"
)

// mapLog holds the versions of this cluster's bundle map, which has the hosted domains and those that the cluster
// attests, and the order in which they changed. A stream only keeps the number up to which its peer was sent the
// changes. The bundles themselves stay in the store.
type mapLog struct {
	mu     sync.Mutex
	number uint64
	known  map[string]relationship.Version
	// changes are ordered by number. Those up to dropped are not kept.
	changes []mapLogChange
	dropped uint64
}

type mapLogChange struct {
	number uint64
	td     string
}

// logSlack is how many changes are kept beyond two for each domain.
const logSlack = 4096

func newMapLog() *mapLog { return &mapLog{known: make(map[string]relationship.Version)} }

// set records which version of a domain is in the map; the zero version removes the domain. It reports whether that is
// a change.
func (l *mapLog) set(td string, v relationship.Version) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, ok := l.known[td]
	switch {
	case v.None() && !ok, ok && was == v:
		return false
	case v.None():
		delete(l.known, td)
	default:
		l.known[td] = v
	}
	l.number++
	l.changes = append(l.changes, mapLogChange{l.number, td})
	if len(l.changes) > 2*len(l.known)+logSlack {
		half := len(l.changes) / 2
		l.dropped = l.changes[half-1].number
		l.changes = slices.Clone(l.changes[half:])
	}
	return true
}

// names returns the domains in the map, in no order.
func (l *mapLog) names() (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for td := range l.known {
		names = append(names, td)
	}
	return names
}

// after returns the domains that changed after a number, each once and in order, and the number of the latest change.
// It returns false if not all of these changes are kept any more.
func (l *mapLog) after(number uint64) (names []string, now uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number < l.dropped {
		return nil, number, false
	}
	first, found := slices.BinarySearchFunc(
		l.changes,
		number,
		func(c mapLogChange, n uint64) int { return cmp.Compare(c.number, n) },
	)
	if found {
		first++
	}
	for _, c := range l.changes[first:] {
		names = append(names, c.td)
	}
	slices.Sort(names)
	return slices.Compact(names), l.number, true
}

// differing returns, in order, the covered domains of which the map has another version than has, and the number of the
// latest change.
func (l *mapLog) differing(
	covers func(td string) bool,
	has map[string]relationship.Version,
) (names []string, now uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for td, v := range l.known {
		if covers(td) && has[td] != v {
			names = append(names, td)
		}
	}
	for td := range has {
		if _, ok := l.known[td]; !ok && covers(td) {
			names = append(names, td)
		}
	}
	slices.Sort(names)
	return names, l.number
}
