package fetch

import (
	"context"
	"errors"
	"time"

	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// promptWithin is how long a fetch of the fast queue may occupy its place. A peer that answers needs a small part
	// of that. A peer that takes longer is fetched again from the slow queue, for as long as its relationship allows.
	promptWithin = 3 * time.Second
	// maxPenalty caps how many consecutive prompt answers a slow peer must give before it returns to the fast queue.
	maxPenalty = 63
)

// Wait is how long a refresh has waited for its peer, and how long it may. A nil Wait counts nothing and has no bound.
type Wait struct {
	bound time.Duration // 0 is no bound
	spent time.Duration
	// requested is true if an operator requested the refresh.
	requested bool
}

// Requested returns a Wait without a bound, for a refresh that an operator requested.
func Requested() *Wait { return &Wait{requested: true} }

// Requested reports whether an operator requested the refresh.
func (w *Wait) Requested() bool { return w != nil && w.requested }

// On runs a call to the peer. It returns [relationship.ErrUnfinished] if the bound ends it.
func (w *Wait) On(ctx context.Context, call func(ctx context.Context) error) error {
	if w == nil {
		return call(ctx)
	}
	bounded, cancel := ctx, context.CancelFunc(func() {})
	if w.bound > 0 {
		bounded, cancel = context.WithTimeout(ctx, w.bound-w.spent)
	}
	defer cancel()
	began := time.Now()
	err := call(bounded)
	w.spent += time.Since(began)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil && w.bound > 0 {
		return relationship.ErrUnfinished
	}
	return err
}

// penalty decides in which queue a relationship is fetched, by how promptly its peer has answered.
type penalty struct {
	// level grows with each slow answer in the fast queue and shrinks with each prompt one. Lower levels go first.
	level int
	// owed is how many prompt answers in the slow queue bring the peer back to the fast one.
	owed int
}

// slow reports whether the next attempt runs in the slow queue.
func (p penalty) slow() bool { return p.owed > 0 }

// after returns the penalty after an attempt. Each time that a peer occupies a place in the fast queue for long, the
// number of prompt answers that it owes doubles, so that a peer gains nothing by alternating. A peer that was out of
// service for a while and is back owes a single one.
func (p penalty) after(prompt bool) penalty {
	switch {
	case !prompt && p.slow():
	case !prompt:
		p.level = min(2*p.level+1, maxPenalty)
		p.owed = p.level
	case p.slow():
		p.owed--
	case p.level > 0:
		p.level--
	}
	return p
}

// prompt reports whether an attempt occupied its place no longer than usual. An attempt that a short limit of its own
// relationship ended is not prompt.
func prompt(o intake.Outcome) bool {
	return o.Waited < promptWithin && o.Result != "timeout" && !errors.Is(o.Err, relationship.ErrUnfinished)
}
