package raftstore

import (
	"sync"
)

// The bounds of what is kept for watches: enough for a watcher that is seconds behind under full load.
const (
	maxHistoryBatches = 16384
	maxHistoryBytes   = 16 << 20
)

// history keeps the last changes, in order, and tells subscribers that there are some for them. Appending never waits for
// anybody.
type history struct {
	mu sync.Mutex
	// batches are numbered: the first one is number start. Elements are never overwritten, so that a part of the slice can be
	// read without the lock.
	batches []Batch
	start   uint64
	bytes   int
	// horizon is the newest revision of which changes may be missing.
	horizon Revision
	byTable map[string]map[*subscription]struct{}
}

// subscription is told of changes below its prefixes.
type subscription struct {
	over    []Prefix
	from    Revision      // changes up to here are not wanted
	signal  chan struct{} // holds one signal
	pending bool          // there may be changes from number first on
	first   uint64
	missed  bool // changes were lost
}

func newHistory() *history {
	return &history{byTable: map[string]map[*subscription]struct{}{}}
}

func (h *history) end() uint64 { return h.start + uint64(len(h.batches)) }

func (h *history) append(batches []Batch) {
	if len(batches) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range batches {
		number := h.end()
		h.batches = append(h.batches, b)
		h.bytes += b.size()
		for _, c := range b.Changes {
			for s := range h.byTable[c.Table] {
				s.notice(c, number, b.Revision)
			}
		}
	}
	h.trim()
}

// trim drops the oldest changes beyond the bounds.
func (h *history) trim() {
	drop := 0
	for len(h.batches)-drop > maxHistoryBatches || h.bytes > maxHistoryBytes && drop < len(h.batches) {
		h.bytes -= h.batches[drop].size()
		h.horizon = h.batches[drop].Revision
		drop++
	}
	if drop == 0 {
		return
	}
	h.start += uint64(drop)
	h.batches = h.batches[drop:]
	if cap(h.batches) < 2*len(h.batches) {
		// Copied now and then, so that the array does not keep what was dropped.
		h.batches = append(make([]Batch, 0, 4*len(h.batches)), h.batches...)
	}
}

// reset forgets everything: the state was replaced as a whole.
func (h *history) reset(at Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.start = h.end()
	h.batches, h.bytes, h.horizon = nil, 0, at
	for _, subscribers := range h.byTable {
		for s := range subscribers {
			s.missed = true
			s.wake()
		}
	}
}

func (s *subscription) notice(c Change, number uint64, at Revision) {
	if s.pending || at <= s.from || !s.wants(c) {
		return
	}
	s.pending, s.first = true, number
	s.wake()
}

func (s *subscription) wants(c Change) bool {
	for _, p := range s.over {
		if p.Holds(c.Table, c.Key) {
			return true
		}
	}
	return false
}

func (s *subscription) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// subscribe registers for changes below the prefixes that come after a revision.
func (h *history) subscribe(over []Prefix, from Revision) *subscription {
	s := &subscription{over: over, from: from, signal: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range over {
		if h.byTable[p.Table] == nil {
			h.byTable[p.Table] = map[*subscription]struct{}{}
		}
		h.byTable[p.Table][s] = struct{}{}
	}
	s.missed = from < h.horizon
	for i, b := range h.batches {
		if b.Revision > from {
			s.pending, s.first = true, h.start+uint64(i)
			break
		}
	}
	if s.missed || s.pending {
		s.wake()
	}
	return s
}

func (h *history) unsubscribe(s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range s.over {
		delete(h.byTable[p.Table], s)
		if len(h.byTable[p.Table]) == 0 {
			delete(h.byTable, p.Table)
		}
	}
}

// seen marks everything up to now as seen.
func (h *history) seen(s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.pending, s.missed = false, false
}

// next returns the oldest changes that the subscriber has not got yet, and whether there are any.
func (h *history) next(s *subscription) (Batch, bool, error) {
	for {
		h.mu.Lock()
		if s.missed || s.pending && s.first < h.start {
			s.missed = true
			h.mu.Unlock()
			return Batch{}, false, ErrWatchRestart
		}
		if s.pending && s.first == h.end() {
			s.pending = false
		}
		if !s.pending {
			h.mu.Unlock()
			return Batch{}, false, nil
		}
		unseen := h.batches[s.first-h.start:]
		first := s.first
		h.mu.Unlock()

		for i, b := range unseen {
			if wanted := b.below(s); len(wanted.Changes) > 0 {
				s.advance(h, first+uint64(i)+1)
				return wanted, true, nil
			}
		}
		s.advance(h, first+uint64(len(unseen)))
	}
}

// advance moves a subscriber that has pending changes; only the subscriber itself does so.
func (s *subscription) advance(h *history, to uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !s.missed {
		s.first = to
	}
}
