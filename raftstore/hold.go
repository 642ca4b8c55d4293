package raftstore

import (
	"slices"
	"strings"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// heldFromOther reports whether a proposal writes what is kept for another transaction.
func (q *scheduler) heldFromOther(p *proposal) bool {
	for _, h := range q.holds {
		if h.until.IsZero() || h.by == p.by {
			continue
		}
		for _, c := range p.command.GetTransaction().GetChanges() {
			if reads(h.reads, c.GetTable(), c.GetKey()) {
				return true
			}
		}
	}
	return false
}

// enqueueHold puts a rejected proposal in the line for its keys.
func (q *scheduler) enqueueHold(p *proposal) {
	q.release(p.by)
	q.holds = append(q.holds, &hold{by: p.by, reads: p.command.GetTransaction(), rejected: p})
}

// release ends what was kept for a transaction.
func (q *scheduler) release(by commandKey) {
	q.holds = slices.DeleteFunc(q.holds, func(h *hold) bool { return h.by == by && !h.until.IsZero() })
}

// grant tells those whose turn has come. They catch up to the state as it is now, which nobody changes below them.
func (q *scheduler) grant(now time.Time, s *state) (answers []answer) {
	q.holds = slices.DeleteFunc(q.holds, func(h *hold) bool {
		if !h.until.IsZero() || !h.rejected.abandoned() {
			return false
		}
		answers = append(answers, answer{h.rejected, conflict(s.revision)})
		return true
	})
	for i, h := range q.holds {
		if !h.until.IsZero() || q.claimed(h.reads) || slices.ContainsFunc(q.holds[:i], h.overlaps) || q.olderWriter(h) {
			continue
		}
		h.until = now.Add(holdTime)
		answers = append(answers, answer{h.rejected, conflict(s.revision)})
		h.rejected = nil
	}
	return answers
}

// olderWriter reports whether a proposal that came before the hold waits to write its keys: those who only write have their
// turn too.
func (q *scheduler) olderWriter(h *hold) bool {
	return slices.ContainsFunc(q.waiting, func(p *proposal) bool {
		return p.arrived.Before(h.rejected.arrived) && slices.ContainsFunc(p.command.GetTransaction().GetChanges(), func(c *statev1.RowChange) bool {
			return reads(h.reads, c.GetTable(), c.GetKey())
		})
	})
}

// wake returns when the next hold ends; zero: there is none.
func (q *scheduler) wake() (next time.Time) {
	for _, h := range q.holds {
		if !h.until.IsZero() && (next.IsZero() || h.until.Before(next)) {
			next = h.until
		}
	}
	return next
}

// overlaps reports whether two transactions read something in common.
func (h *hold) overlaps(other *hold) bool {
	for _, c := range other.reads.GetRows() {
		if reads(h.reads, c.GetTable(), c.GetKey()) {
			return true
		}
	}
	for _, theirs := range other.reads.GetPrefixes() {
		for _, c := range h.reads.GetRows() {
			if c.GetTable() == theirs.GetTable() && strings.HasPrefix(c.GetKey(), theirs.GetPrefix()) {
				return true
			}
		}
		for _, own := range h.reads.GetPrefixes() {
			if own.GetTable() == theirs.GetTable() && (strings.HasPrefix(own.GetPrefix(), theirs.GetPrefix()) || strings.HasPrefix(theirs.GetPrefix(), own.GetPrefix())) {
				return true
			}
		}
	}
	return false
}

// reads reports whether a transaction read a row, by itself or below a prefix.
func reads(t *statev1.Transaction, table, key string) bool {
	for _, c := range t.GetRows() {
		if c.GetTable() == table && c.GetKey() == key {
			return true
		}
	}
	for _, c := range t.GetPrefixes() {
		if c.GetTable() == table && strings.HasPrefix(key, c.GetPrefix()) {
			return true
		}
	}
	return false
}
