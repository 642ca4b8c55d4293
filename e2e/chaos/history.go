package chaos

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Span is when something was asked and when it was answered, since the run began.
type Span struct{ Call, Return time.Duration }

// overlaps reports whether two spans have a moment in common.
func (s Span) overlaps(o Span) bool { return s.Call <= o.Return && o.Call <= s.Return }

// Seen is a number that one member answered, and that must not fall: the sequence of a bundle, or a revision.
type Seen struct {
	Span
	Member, What string
	Value        uint64
}

// Asked is a request between two questions for /ready, both of which were answered with 200.
type Asked struct {
	Span
	Member  string
	Refusal string // why the member refused the request; empty: it answered
}

// Life is a moment at which a member was stopped, started, paused or continued.
type Life struct {
	At     time.Duration
	Member string
}

// Issued is an X509-SVID.
type Issued struct{ Member, Authority, Serial string }

// Write is one attempt to add a row that nothing deletes.
type Write struct {
	Span
	Row          string
	Acknowledged bool
}

// Restored is the replacement of the state by a snapshot: Call is when the snapshot was requested, and Return when it
// had been restored. Nothing that was written meanwhile has to be there.
type Restored struct{ Span }

// Health is what one member answered to /ready/write, and how a write through it ended that began afterwards.
type Health struct {
	Span
	Member  string
	Ready   bool
	Refusal string // of the write; empty: it was made
}

// History is what clients saw. Its methods can be called from any goroutine; the checks are for its end.
type History struct {
	mu           sync.Mutex
	Seen         []Seen
	Asked        []Asked
	Lives        []Life
	Issued       []Issued
	Writes       []Write
	Restored     []Restored
	Health       []Health
	Transactions []Transaction
}

// Add records something.
func (h *History) Add(event any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch e := event.(type) {
	case Seen:
		h.Seen = append(h.Seen, e)
	case Asked:
		h.Asked = append(h.Asked, e)
	case Life:
		h.Lives = append(h.Lives, e)
	case Issued:
		h.Issued = append(h.Issued, e)
	case Write:
		h.Writes = append(h.Writes, e)
	case Restored:
		h.Restored = append(h.Restored, e)
	case Health:
		h.Health = append(h.Health, e)
	case Transaction:
		h.Transactions = append(h.Transactions, e)
	default:
		panic("chaos: a history does not record this")
	}
}

// Next returns a history that has only what must hold beyond the end of this one: the highest numbers that members
// answered, and the serial numbers.
func (h *History) Next() *History {
	type source struct{ member, what string }
	highest := map[source]Seen{}
	for _, s := range h.Seen {
		of := source{s.Member, s.What}
		if have, ok := highest[of]; !ok || s.Value > have.Value {
			highest[of] = s
		}
	}
	return &History{Seen: slices.Collect(maps.Values(highest)), Issued: h.Issued}
}

// Acknowledged returns how many writes were acknowledged so far.
func (h *History) Acknowledged() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.Writes {
		if w.Acknowledged {
			n++
		}
	}
	return n
}

// lost reports whether a restore may have taken what was done in a span.
func (h *History) lost(s Span) bool {
	return slices.ContainsFunc(h.Restored, func(r Restored) bool { return r.overlaps(s) })
}
