package commit

import (
	"slices"
	"strings"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// reservation keeps what a transaction has read for its next attempt.
type reservation struct {
	by    commandKey
	reads *statev1.Transaction
	until time.Time // zero: it waits for its turn
	// rejected is answered when the turn comes.
	rejected *proposal
}

func (r *reservation) granted() bool { return !r.until.IsZero() }

// reservedByOther reports whether a proposal writes what is reserved for another transaction.
func (q *scheduler) reservedByOther(p *proposal) bool {
	for _, r := range q.reservations {
		if r.granted() && r.by != p.by && r.readsWhatIsWritten(p) {
			return true
		}
	}
	return false
}

func (r *reservation) readsWhatIsWritten(p *proposal) bool {
	changes := p.command.GetTransaction().GetChanges()
	return slices.ContainsFunc(changes, func(c *statev1.RowChange) bool {
		return reads(r.reads, c.GetTable(), c.GetKey())
	})
}

// reserve puts a rejected proposal in the line for its keys.
func (q *scheduler) reserve(p *proposal) {
	q.release(p.by)
	q.reservations = append(q.reservations, &reservation{by: p.by, reads: p.command.GetTransaction(), rejected: p})
}

// release ends what was reserved for a transaction.
func (q *scheduler) release(by commandKey) {
	q.reservations = slices.DeleteFunc(q.reservations, func(r *reservation) bool { return r.by == by && r.granted() })
}

// grant answers those whose turn has come. They catch up to the present state, which then does not change under them.
func (q *scheduler) grant(now time.Time, s *machine.State) (answers []answer) {
	q.reservations = slices.DeleteFunc(q.reservations, func(r *reservation) bool {
		if r.granted() || !r.rejected.abandoned() {
			return false
		}
		answers = append(answers, answer{r.rejected, conflict(s.Revision)})
		return true
	})
	for i, r := range q.reservations {
		if r.granted() || q.claimed(r.reads) || slices.ContainsFunc(q.reservations[:i], r.overlaps) ||
			q.olderWriter(r) {
			continue
		}
		r.until = now.Add(reservationTime)
		answers = append(answers, answer{r.rejected, conflict(s.Revision)})
		r.rejected = nil
	}
	return answers
}

// olderWriter reports whether a proposal that arrived before the reservation waits to write its keys: proposals that
// only write have their turn too.
func (q *scheduler) olderWriter(r *reservation) bool {
	return slices.ContainsFunc(q.waiting, func(p *proposal) bool {
		return p.arrived.Before(r.rejected.arrived) && r.readsWhatIsWritten(p)
	})
}

// wake returns when the next reservation ends, or zero if there is none.
func (q *scheduler) wake() (next time.Time) {
	for _, r := range q.reservations {
		if r.granted() && (next.IsZero() || r.until.Before(next)) {
			next = r.until
		}
	}
	return next
}

// overlaps reports whether two transactions have read something in common.
func (r *reservation) overlaps(other *reservation) bool {
	for _, c := range other.reads.GetRows() {
		if reads(r.reads, c.GetTable(), c.GetKey()) {
			return true
		}
	}
	for _, theirs := range other.reads.GetPrefixes() {
		for _, c := range r.reads.GetRows() {
			if c.GetTable() == theirs.GetTable() && strings.HasPrefix(c.GetKey(), theirs.GetPrefix()) {
				return true
			}
		}
		for _, own := range r.reads.GetPrefixes() {
			if own.GetTable() == theirs.GetTable() && nested(own.GetPrefix(), theirs.GetPrefix()) {
				return true
			}
		}
	}
	return false
}

// nested reports whether one of two prefixes lies below the other.
func nested(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

// reads reports whether a transaction has read a row, by itself or below a prefix.
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
