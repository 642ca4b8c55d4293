package peer

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/peer/session"
)

// The limits of one peer at one member. Each pair is a sustained rate per second and a burst.
const (
	// Opening a stream costs a check against all relationships. A working peer waits longer and longer between
	// attempts.
	openRate = 1
	// OpenBurst is the burst of openRate.
	OpenBurst = 4 * MaxStreamsPerPeer
	// A full set of domains with its acknowledgements fits into the burst of messages.
	messageRate = 50
	// MessageBurst is the burst of messageRate.
	MessageBurst        = 4 * session.MaxDomains
	byteRate, byteBurst = 1 << 20, 32 << 20
	// Each bundle that is stored is a write to the Raft log. A peer that sends more is not read from meanwhile.
	bundleRate, bundleBurst = 10, 2 * session.MaxDomains
	// A hub may send its whole map at once, because that is what a new spoke lacks.
	attestationRate, attestationBurst = 200, bundle.MaxMapDomains
	// Each subscription to the map is compared with all of it.
	subscriptionRate, subscriptionBurst = 1, 2 * MaxMapSubscriptions
	// excuseRate limits the refusals that may not be the peer's fault. The burst covers all domains of a stream, as
	// where this cluster is one version behind with every one of them.
	excuseRate = 0.1
	// ExcuseBurst is the burst of excuseRate.
	ExcuseBurst = session.MaxDomains
	// logRate limits the lines about refusals in the log and in the audit log. Metrics count all.
	logRate = 1
	// LogBurst is the burst of logRate.
	LogBurst = 20
	// A peer is sent its map at half of the rate at which it may be sent anything, in bursts of a quarter.
	mapRate, mapBurst = byteRate / 2, byteBurst / 4
	// MaxHeld bounds the bytes that wait in memory for one peer. A spoke that has ten thousand domains names them with
	// some 2 MiB, and twice that while one of its streams replaces another.
	MaxHeld = 4 << 20
	// MaxMapSubscriptions bounds the domains for which one peer follows this cluster's map. It needs one.
	MaxMapSubscriptions = 16
)

// Budget limits what one peer may require of a member, over all its streams and however often it reconnects.
type Budget struct {
	opens, messages, bytes, bundles, attestations, excuses, lines *rate.Limiter
	// Maps limits the sending of this cluster's map. Its Held also counts the map changes of the peer that wait to be
	// stored.
	Maps MapBudget
	// Turn lets one bundle, statement list or map change of the peer be examined at a time.
	Turn *semaphore.Weighted
}

func newBudget() *Budget {
	return &Budget{
		opens: rate.NewLimiter(openRate, OpenBurst), messages: rate.NewLimiter(messageRate, MessageBurst),
		bytes: rate.NewLimiter(byteRate, byteBurst), bundles: rate.NewLimiter(bundleRate, bundleBurst),
		attestations: rate.NewLimiter(
			attestationRate,
			attestationBurst,
		), excuses: rate.NewLimiter(excuseRate, ExcuseBurst),
		lines: rate.NewLimiter(logRate, LogBurst), Turn: semaphore.NewWeighted(1),
		Maps: NewMapBudget(),
	}
}

// NewMapBudget returns the unused budget of one peer.
func NewMapBudget() MapBudget {
	return MapBudget{
		Subscriptions: rate.NewLimiter(subscriptionRate, subscriptionBurst), Bytes: rate.NewLimiter(mapRate, mapBurst),
		Held: semaphore.NewWeighted(MaxHeld),
	}
}

// inTurn runs fn while nothing else that the peer sent is examined. If ctx ends before, it returns the error of ctx.
func (b *Budget) inTurn(ctx context.Context, fn func() error) error {
	if err := b.Turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer b.Turn.Release(1)
	return fn()
}

// budgets holds the budgets of all peers that relationships name.
type budgets struct {
	mu     sync.Mutex
	byHome map[string]*Budget
}

// of returns the budget of a peer. It is created with the first stream.
func (b *budgets) of(home string) *Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	budget, ok := b.byHome[home]
	if !ok {
		budget = newBudget()
		b.byHome[home] = budget
	}
	return budget
}

func (b *budgets) forget(home string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.byHome, home)
}

// logAllowed reports whether the budget of a peer allows one more log line about a refusal.
func (b *budgets) logAllowed(home string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	budget, ok := b.byHome[home]
	return !ok || budget.lines.AllowN(now, 1)
}
