package federation

import (
	"sync"
	"time"
)

// compareMapEvery is how often the map that a hub serves is compared with what it tells over a stream. In between it is only asked whether
// it serves one: of ten thousand clusters a map has 26 MB, in which something has changed every hour.
const compareMapEvery = 24 * time.Hour

// mapTags remembers by which tag a hub last served the map that was taken whole, and when it was last compared with what is stored.
type mapTags struct {
	mu    sync.Mutex
	byHub map[string][2]string
	at    map[string]time.Time
}

func newMapTags() *mapTags {
	return &mapTags{byHub: map[string][2]string{}, at: map[string]time.Time{}}
}

func (t *mapTags) of(hub, basis string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.byHub[hub]; known[0] == basis {
		return known[1]
	}
	return ""
}

func (t *mapTags) remember(hub, basis, tag string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.byHub[hub] = [2]string{basis, tag}
}

func (t *mapTags) forget(hub string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byHub, hub)
	delete(t.at, hub)
}

// forgetAll has all maps read and compared anew: what is stored may have been put there by a restore.
func (t *mapTags) forgetAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.byHub)
	clear(t.at)
}

// compared notes that the map was read, or is known to be as it was.
func (t *mapTags) compared(hub string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at[hub] = now
}

// comparedAt is when that was; zero: not since this member asks for it.
func (t *mapTags) comparedAt(hub string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at[hub]
}

// looksOnly reports whether it is enough to know that a hub serves its map: a stream keeps what is stored of it up to date, it was compared not
// long ago, and no operator asks.
func (m *Manager) looksOnly(hub string, b basis) bool {
	peer := b.relationship.Peer
	return peer != nil && !b.wait.forOperator() && m.peers.streamed(peer.Home.Name(), hub+mapSuffix) && comparedLately(m.mapTags.comparedAt(hub), m.now())
}

// comparedLately is the rule of it. A clock that was set back has a map compared again.
func comparedLately(at, now time.Time) bool {
	age := now.Sub(at)
	return !at.IsZero() && age >= 0 && age < compareMapEvery
}
