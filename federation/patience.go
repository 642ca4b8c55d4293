package federation

import (
	"context"
	"errors"
	"time"

	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// promptly is for how long a fetch of the fast lane may keep its place in it. A peer that answers takes a small part of that; one that
	// takes longer is asked again in the slow lane, for as long as its relationship allows.
	promptly = 3 * time.Second
	// mostStrikes bounds how many prompt answers a peer owes at the most before it is taken for prompt again.
	mostStrikes = 63
)

// wait is how long a refresh has waited for its peer, whatever else it did, and for how long it may. Nil counts nothing and has no bound.
type wait struct {
	most  time.Duration // 0: no bound
	spent time.Duration
	// byHand says that an operator asks.
	byHand bool
}

func (w *wait) forOperator() bool { return w != nil && w.byHand }

// on asks the peer. The error is errUnfinished where time ran out.
func (w *wait) on(ctx context.Context, ask func(ctx context.Context) error) error {
	if w == nil {
		return ask(ctx)
	}
	bounded, cancel := ctx, context.CancelFunc(func() {})
	if w.most > 0 {
		bounded, cancel = context.WithTimeout(ctx, w.most-w.spent)
	}
	defer cancel()
	began := time.Now()
	err := ask(bounded)
	w.spent += time.Since(began)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil && w.most > 0 {
		return relationship.ErrUnfinished
	}
	return err
}

// conduct is what a relationship's fetches have shown of how its peer answers: fast, or so that a place is lost to others for long.
type conduct struct {
	// strikes grow with each fetch of the fast lane that took long, and shrink with each prompt one. Those with fewer go first.
	strikes int
	// owed is how many prompt answers the peer owes in the slow lane before it is back in the fast one.
	owed int
}

// slow reports whether the next attempt is made in the slow lane.
func (c conduct) slow() bool { return c.owed > 0 }

// after is the conduct after an attempt. A peer that answers promptly now and hangs then gains nothing by it: each time that it takes a
// place of the fast lane for long, it owes twice as many prompt answers, and pays them where nobody waits for them but its like. One that
// was out for a while and is back owes a single one.
func (c conduct) after(prompt bool) conduct {
	switch {
	case !prompt && c.slow():
	case !prompt:
		c.strikes = min(2*c.strikes+1, mostStrikes)
		c.owed = c.strikes
	case c.slow():
		c.owed--
	case c.strikes > 0:
		c.strikes--
	}
	return c
}

// prompt reports whether an attempt held its place for no longer than most peers do. A peer that lets a short limit of its own
// relationship pass is as silent as another.
func prompt(o intake.Outcome) bool {
	return o.Waited < promptly && o.Result != "timeout" && !errors.Is(o.Err, relationship.ErrUnfinished)
}
