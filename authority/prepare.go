package authority

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/internal/clock"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
)

// preparer makes the keys of this member's next authorities and has them signed.
type preparer struct {
	config     *Config
	executor   *executor
	reconciler *reconciler
	journal    *journal.Journal
	factory    *factory
	roots      upstream.RootMaker // nil if the upstream does not make its anchors on this member
	sweeper    *sweeper
	changed    *loop.Signal
	failures   failures

	// making is held while a key exists that is in no table yet, and while keys that are in none are swept. prepareAll
	// sweeps itself and waits for the upstream, so it does not hold making while it makes keys.
	making sync.Mutex
	// unswept is set when keys were made after the last sweep. Their transaction may have failed without a trace.
	unswept atomic.Bool
	// resume is the domain with which the next round of prepareAll begins. Only prepareAll uses it.
	resume string
}

func newPreparer(m *Manager, changes *journal.Journal, up upstream.Upstream) *preparer {
	p := &preparer{
		config: &m.config, executor: m.executor, reconciler: m.reconciler, journal: changes, changed: &m.changed,
		sweeper: &sweeper{store: m.config.Store, member: m.config.Member, keys: m.keys, upstream: up, now: m.config.Now,
			log: m.config.Logger},
	}
	p.roots, _ = up.(upstream.RootMaker)
	p.factory = &factory{
		member: m.config.Member, home: m.config.Home, dnsName: m.config.DNSName, store: m.config.Store, keys: m.keys,
		upstream: up, anchors: m.anchors, linter: m.linter, jwtKeyTTL: m.config.JWTKeyTTL,
		failed: func(ctx context.Context, td string, err error) { p.record(ctx, td, plan.X509, err) },
	}
	return p
}

// prepareAll prepares the authorities that this member's domains need next, except for those that prepareJWT prepares.
// It ends a round in which the upstream has failed for too long, and begins the next round where this one ended.
func (p *preparer) prepareAll(ctx context.Context) (next time.Time, err error) {
	domains, next, err := p.reconciler.domains(ctx)
	if err != nil {
		return plan.Never, err
	}
	var errs []error
	began := time.Now()
	for _, td := range rotate(domains, p.resume) {
		if len(errs) > 0 && time.Since(began) > loop.LastRetry {
			p.resume = td
			return plan.Never, errors.Join(errs...)
		}
		at, err := p.prepareDomain(ctx, td, false)
		if err != nil {
			errs = append(errs, fmt.Errorf("authorities of %s: %w", td, err))
		}
		next = plan.Sooner(next, at)
		if at, err = p.succeed(ctx, td); err != nil {
			errs = append(errs, fmt.Errorf("the next root of %s: %w", td, err))
		}
		next = plan.Sooner(next, at)
	}
	p.resume = ""
	p.making.Lock()
	defer p.making.Unlock()
	at, err := p.sweeper.sweep(ctx, p.unswept.Swap(false))
	if err != nil {
		p.unswept.Store(true)
	}
	return plan.Sooner(next, at), errors.Join(append(errs, err)...)
}

// prepareJWT prepares the JWT authorities of this member's domains. They need no upstream, so they do not wait for one
// that fails or hangs.
func (p *preparer) prepareJWT(ctx context.Context) (next time.Time, err error) {
	domains, next, err := p.reconciler.domains(ctx)
	if err != nil {
		return plan.Never, err
	}
	p.making.Lock()
	defer p.making.Unlock()
	var errs []error
	for _, td := range domains {
		at, err := p.prepareDomain(ctx, td, true)
		if err != nil {
			errs = append(errs, fmt.Errorf("JWT authorities of %s: %w", td, err))
		}
		next = plan.Sooner(next, at)
	}
	return next, errors.Join(errs...)
}

// rotate returns the sorted names beginning with first, followed by those before it.
func rotate(names []string, first string) []string {
	i := slices.IndexFunc(names, func(name string) bool { return name >= first })
	if i < 0 {
		return names
	}
	return append(slices.Clone(names[i:]), names[:i]...)
}

// together reports whether a domain begins with authorities of all kinds in one bundle: it has none yet, and the
// upstream is not known to fail.
func (p *preparer) together(s plan.Situation, td string) bool {
	_, failed := p.failures.get(td, plan.X509)
	return len(s.Authorities) == 0 && !failed
}

// prepareDomain prepares what is due in a domain, and returns the time of the next run. With jwt it prepares JWT
// authorities; without, all others, and JWT authorities only if the domain begins with all kinds together.
func (p *preparer) prepareDomain(ctx context.Context, td string, jwt bool) (time.Time, error) {
	for range maxRounds {
		view := p.config.Store.View()
		domain, ok, err := table.Domains.Get(view, td)
		if err != nil || !ok {
			return plan.Never, err
		}
		s, _, err := p.executor.situation(view, domain.Value, p.config.Now())
		if err != nil {
			return plan.Never, err
		}
		actions, next := plan.Next(s)
		together := p.together(s, td)
		actions = slices.DeleteFunc(actions, func(a plan.Action) bool {
			return a.Do != plan.Prepare || (a.Kind == plan.JWT && !together) != jwt
		})
		if len(actions) == 0 {
			return next, nil
		}
		if err := p.prepareActions(ctx, s, domain.Value, actions); err != nil {
			return plan.Never, err
		}
	}
	return p.config.Now().Add(loop.LastRetry), nil
}

// prepareActions prepares the authorities that the actions require, and adds them to the tables. The intent is recorded
// first: if the audit log cannot be written, no key is made and no upstream is called.
func (p *preparer) prepareActions(
	ctx context.Context, s plan.Situation, domain *statev1.Domain, actions []plan.Action,
) error {
	var failed error // part of the actions, while the others are committed
	err := p.journal.Around(
		domain.GetTrustDomain(),
		func(commit func(context.Context, journal.Transaction) error) error {
			candidates, err := p.prepare(ctx, s, domain, actions)
			if len(candidates) == 0 {
				return err
			}
			failed = err
			err = commit(ctx, func(tx *raftstore.Tx) ([]journal.Step, error) {
				return p.executor.carryOut(tx, domain.GetTrustDomain(), candidates, nil)
			})
			p.unswept.Store(true)
			p.changed.Fire()
			return errors.Join(err, p.discard(ctx, candidates, err))
		},
	)
	return errors.Join(failed, err)
}

// prepare makes the authorities that the actions require. Their keys are stored when it returns. It stops at the first
// failure: once that of the upstream is recorded, prepareJWT no longer waits.
func (p *preparer) prepare(
	ctx context.Context, s plan.Situation, domain *statev1.Domain, actions []plan.Action,
) (map[plan.Kind]candidate, error) {
	made := map[plan.Kind]candidate{}
	for _, action := range actions {
		row, err := p.factory.make(ctx, s, domain, action)
		if err != nil {
			err = fmt.Errorf("prepare an authority for %s: %w", action.Kind, err)
		}
		p.record(ctx, domain.GetTrustDomain(), action.Kind, err)
		if err != nil {
			return made, err
		}
		made[action.Kind] = candidate{row, action.NewAnchor, s.Now}
	}
	return made, nil
}

// record stores the outcome of an attempt, and wakes the loops at the first failure.
func (p *preparer) record(ctx context.Context, td string, kind plan.Kind, err error) {
	if ctx.Err() == nil && p.failures.set(td, kind, err) {
		p.changed.Fire()
	}
}

// discard deletes the keys of candidates whose transaction was certainly not committed. The sweeper finds the others.
func (p *preparer) discard(ctx context.Context, candidates map[plan.Kind]candidate, err error) error {
	if !errors.Is(err, raftstore.ErrNoLeader) && !errors.Is(err, raftstore.ErrBusy) &&
		!errors.Is(err, raftstore.ErrTooLarge) && !errors.Is(err, clock.ErrUnknown) {
		return nil
	}
	var errs []error
	for _, c := range candidates {
		errs = append(errs, p.executor.keys.Delete(ctx, c.row.GetId()))
	}
	return errors.Join(errs...)
}

// failures are the reasons for which the latest attempts to prepare authorities failed. The zero value is empty.
type failures struct {
	mu      sync.Mutex
	reasons map[domainKind]string
}

// domainKind is a kind of authority in a domain.
type domainKind struct {
	td   string
	kind plan.Kind
}

// set stores the outcome of an attempt, and reports whether it is the first failure after a success.
func (f *failures) set(td string, kind plan.Kind, err error) (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reasons == nil {
		f.reasons = map[domainKind]string{}
	}
	key := domainKind{td, kind}
	_, known := f.reasons[key]
	delete(f.reasons, key)
	if err != nil {
		f.reasons[key] = loop.OneLine(err)
	}
	return err != nil && !known
}

// get returns the reason for which the latest attempt failed, and whether it did.
func (f *failures) get(td string, kind plan.Kind) (reason string, failed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if reason, ok := f.reasons[domainKind{td, kind}]; ok {
		return reason, true
	}
	return "no attempt has failed yet", false
}
