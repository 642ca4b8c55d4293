package federation

import (
	"sync"
	"time"

	"github.com/ententehq/entente/federation/relationship"
)

// compareMapEvery is how often the map that a hub serves is compared with what it tells over a stream. In between it is only asked whether
// it serves one: of ten thousand clusters a map has 26 MB, in which something has changed every hour.
const compareMapEvery = 24 * time.Hour

// mapReadings is what is remembered of how hubs' maps were last read over their endpoints.
type mapReadings struct {
	mu    sync.Mutex
	byHub map[string]mapReading
}

// mapReading is when a map was last compared with what is stored, and the tag that it had when it was last taken whole, which counts as long
// as what was taken from it depends on the same ([reading.tagBasis]).
type mapReading struct {
	basis, tag string
	compared   time.Time
}

func newMapReadings() *mapReadings { return &mapReadings{byHub: make(map[string]mapReading)} }

// tag is that of what was taken whole on this basis; empty: there is none.
func (m *mapReadings) tag(hub, basis string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := m.byHub[hub]; last.basis == basis {
		return last.tag
	}
	return ""
}

func (m *mapReadings) taken(hub, basis, tag string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byHub[hub] = mapReading{basis, tag, m.byHub[hub].compared}
}

func (m *mapReadings) compared(hub string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.byHub[hub]
	last.compared = now
	m.byHub[hub] = last
}

// comparedAt is when the map was last compared; zero: not since this member asks for it.
func (m *mapReadings) comparedAt(hub string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byHub[hub].compared
}

func (m *mapReadings) forget(hub string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byHub, hub)
}

// forgetAll has all maps read and compared anew: what is stored may have been put there by a restore.
func (m *mapReadings) forgetAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.byHub)
}

// looksOnly reports whether it is enough to know that a hub serves its map: a stream keeps what is stored of it up to date, it was compared not
// long ago, and no operator asks.
func (m *Manager) looksOnly(hub string, b basis) bool {
	peer := b.Rel.Peer
	return peer != nil && !b.wait.Requested() && m.covers(peer.Home.Name(), hub+relationship.MapSuffix) && comparedLately(m.mapReadings.comparedAt(hub), m.now())
}

// comparedLately is the rule of it. A clock that was set back has a map compared again.
func comparedLately(at, now time.Time) bool {
	age := now.Sub(at)
	return !at.IsZero() && age >= 0 && age < compareMapEvery
}
