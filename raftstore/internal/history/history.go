// Package history keeps the latest changes of the replicated tables and delivers them to subscriptions. It is bounded:
// appending never waits, and a subscription that is too far behind is marked as having missed changes.
package history

import (
	"errors"
	"sync"

	"github.com/ententehq/entente/raftstore/internal/row"
)

// ErrMissed is returned to a subscription that has missed changes.
var ErrMissed = errors.New("the watch has missed changes: read the state again and watch from its revision")

// The limits of what is kept: enough for a watch that is seconds behind under full load.
const (
	maxBatches = 16384
	maxBytes   = 16 << 20
)

// History keeps the latest changes, in order, and wakes the subscriptions that they concern.
type History struct {
	mu sync.Mutex
	// batches are numbered: the first one has the number start. Elements are never overwritten, so that a part of the
	// slice can be read without the lock.
	batches []row.Batch
	start   uint64
	bytes   int
	// horizon is the newest revision of which changes may be missing.
	horizon row.Revision
	byTable map[string]map[*Subscription]struct{}
}

// New returns an empty history.
func New() *History {
	return &History{byTable: map[string]map[*Subscription]struct{}{}}
}

// Subscription follows the changes below its prefixes. Its methods are for one goroutine at a time.
type Subscription struct {
	history *History
	over    []row.Prefix
	from    row.Revision // changes up to here are not wanted
	signal  chan struct{}
	pending bool // there may be changes from number first on
	first   uint64
	missed  bool
}

func (h *History) end() uint64 { return h.start + uint64(len(h.batches)) }

// Append adds changes, oldest first.
func (h *History) Append(batches []row.Batch) {
	if len(batches) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range batches {
		number := h.end()
		h.batches = append(h.batches, b)
		h.bytes += b.Size()
		for _, c := range b.Changes {
			for s := range h.byTable[c.Table] {
				s.notice(c, number, b.Revision)
			}
		}
	}
	h.trim()
}

// trim drops the oldest changes above the limits.
func (h *History) trim() {
	drop := 0
	for len(h.batches)-drop > maxBatches || h.bytes > maxBytes && drop < len(h.batches) {
		h.bytes -= h.batches[drop].Size()
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
		h.batches = append(make([]row.Batch, 0, 4*len(h.batches)), h.batches...)
	}
}

// Reset drops everything, because the state was replaced as a whole. All subscriptions have then missed changes.
func (h *History) Reset(at row.Revision) {
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

// Subscribe returns a subscription to changes below the prefixes that come after a revision. It must be closed.
func (h *History) Subscribe(over []row.Prefix, from row.Revision) *Subscription {
	s := &Subscription{history: h, over: over, from: from, signal: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range over {
		if h.byTable[p.Table] == nil {
			h.byTable[p.Table] = map[*Subscription]struct{}{}
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

// Close ends the subscription.
func (s *Subscription) Close() {
	h := s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range s.over {
		delete(h.byTable[p.Table], s)
		if len(h.byTable[p.Table]) == 0 {
			delete(h.byTable, p.Table)
		}
	}
}

func (s *Subscription) notice(c row.Change, number uint64, at row.Revision) {
	if s.pending || at <= s.from || !s.wants(c) {
		return
	}
	s.pending, s.first = true, number
	s.wake()
}

func (s *Subscription) wants(c row.Change) bool {
	for _, p := range s.over {
		if p.Holds(c.Table, c.Key) {
			return true
		}
	}
	return false
}

func (s *Subscription) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// Signal delivers a value after something was appended that the subscription may want, or was missed.
func (s *Subscription) Signal() <-chan struct{} { return s.signal }

// Skip marks everything up to now as seen, missed changes included.
func (s *Subscription) Skip() {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	s.pending, s.missed = false, false
}

// Next returns the oldest changes that the subscription has not returned yet, and whether there are any. After
// [ErrMissed] it returns nothing else, until Skip.
func (s *Subscription) Next() (row.Batch, bool, error) {
	for {
		unseen, first, err := s.unseen()
		if err != nil || len(unseen) == 0 {
			return row.Batch{}, false, err
		}
		for i, b := range unseen {
			if wanted := b.Only(s.wants); len(wanted.Changes) > 0 {
				s.advance(first + uint64(i) + 1)
				return wanted, true, nil
			}
		}
		s.advance(first + uint64(len(unseen)))
	}
}

// unseen returns the batches that may concern the subscription, and the number of the first.
func (s *Subscription) unseen() ([]row.Batch, uint64, error) {
	h := s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.missed || s.pending && s.first < h.start {
		s.missed = true
		return nil, 0, ErrMissed
	}
	if s.pending && s.first == h.end() {
		s.pending = false
	}
	if !s.pending {
		return nil, 0, nil
	}
	return h.batches[s.first-h.start:], s.first, nil
}

// advance moves a subscription that has pending changes.
func (s *Subscription) advance(to uint64) {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	if !s.missed {
		s.first = to
	}
}
