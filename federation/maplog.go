package federation

import (
	"cmp"
	"slices"
	"sync"

	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// mapLog is what stands in this cluster's bundle map, hosted domains and those that it vouches for, by version, with the order in which it
// changed: a stream only needs to know up to where it has told its peer. The bundles stay in the store.
type mapLog struct {
	mu     sync.Mutex
	number uint64
	known  map[string]relationship.Version
	// changes are in the order of their numbers; those up to cut are forgotten.
	changes []mapLogChange
	cut     uint64
}

type mapLogChange struct {
	number uint64
	td     string
}

// logSlack is how many changes are remembered beyond two for each domain.
const logSlack = 4096

func newMapLog() *mapLog { return &mapLog{known: make(map[string]relationship.Version)} }

// set says which version of a domain stands in the map now; the zero version: none. It reports whether that is news.
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
		l.cut = l.changes[half-1].number
		l.changes = slices.Clone(l.changes[half:])
	}
	return true
}

// names are those that stand in the map, in no order.
func (l *mapLog) names() (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for td := range l.known {
		names = append(names, td)
	}
	return names
}

// after lists the domains that changed after a number, each once, and the number up to which they did. False: too much has changed since.
func (l *mapLog) after(number uint64) (names []string, now uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number < l.cut {
		return nil, number, false
	}
	first, found := slices.BinarySearchFunc(l.changes, number, func(c mapLogChange, n uint64) int { return cmp.Compare(c.number, n) })
	if found {
		first++
	}
	for _, c := range l.changes[first:] {
		names = append(names, c.td)
	}
	slices.Sort(names)
	return slices.Compact(names), l.number, true
}

// differing lists the domains that are covered and stand in the map otherwise than somebody has them, in order, and the number up to
// which the log is told by that.
func (l *mapLog) differing(covers func(td string) bool, has map[string]relationship.Version) (names []string, now uint64) {
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

// readMapLog brings the log up to date with all relationships.
func (m *Manager) readMapLog(view *raftstore.View) {
	names := append(m.catalog.Names(), m.mapLog.names()...)
	slices.Sort(names)
	m.noteInMapLog(view, slices.Compact(names))
}

// noteInMapLog brings the log up to date with a state of some relationships.
func (m *Manager) noteInMapLog(view *raftstore.View, names []string) {
	news := false
	for _, td := range names {
		if hosted, err := m.config.Trust.Hosted.Hosts(view, td); err != nil || hosted {
			continue // followHosted tells of those
		}
		var v relationship.Version
		if e, ok := m.catalog.Get(td); ok && e.Rel.Vouch {
			if row, found, err := relationship.Relationships.Get(view, td); err == nil && found && relationship.Vouches(row.Value) {
				v = e.Holding.Version()
			}
		}
		news = m.mapLog.set(td, v) || news
	}
	if news {
		m.peers.signalHubs()
	}
}

// mapEntry returns the bundle of a domain as it stands in the map that this cluster serves, or nil if it does not stand there.
func (m *Manager) mapEntry(td string) []byte {
	entry, _, err := m.config.Trust.MapEntry(m.config.Store.View(), td)
	if err != nil {
		m.unreadable(err)
	}
	return entry.Document
}
