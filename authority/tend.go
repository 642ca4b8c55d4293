package authority

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

const (
	// firstRetry and lastRetry bound the wait after a failure: short enough that an election costs nothing, long
	// enough that an upstream that is down for hours is not stormed.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 30 * time.Second

	// clockCheck is how often a member whose clock is not known to be right looks again.
	clockCheck = 250 * time.Millisecond

	// maxRounds bounds how often one look at a domain plans again. Three suffice: prepare, activate, nothing more.
	maxRounds = 8
)

func newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor = firstRetry, lastRetry, 0.5
	return b
}

// tend runs once at each change of the tables and at the moments that once itself asks for, until ctx ends. After a
// failure it waits longer each time.
func (m *Manager) tend(ctx context.Context, what string, once func(context.Context) (time.Time, error)) error {
	retry := newBackoff()
	var complained complaint
	for {
		changed := m.changed.next()
		next, err := once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := until(next, m.config.Now())
		if err != nil {
			wait, changed = retry.NextBackOff(), nil
			m.metrics.failures.WithLabelValues("tend").Inc()
			if complained.worth(oneLine(err), time.Now()) {
				m.log.Warn("could not "+what+"; trying again", "error", oneLine(err), "in", wait)
			}
		} else {
			retry.Reset()
			if complained.over() {
				m.log.Info("could " + what + " again")
			}
		}
		if err := waitFor(ctx, changed, wait); err != nil {
			return err
		}
	}
}

// oneLine is the text of an error for a log, where one event is one line; [errors.Join] puts each error on a line of its own.
func oneLine(err error) string { return strings.Join(strings.Split(err.Error(), "\n"), "; ") }

// hosted are the hosted domains, once this member may begin and end authorities of them; else when to ask again.
func (m *Manager) hosted(ctx context.Context) (domains []string, next time.Time, err error) {
	if !m.config.Contact.ClockSane() {
		return nil, m.config.Now().Add(clockCheck), nil // it must not end or begin anything by its clock
	}
	// A member that founds a cluster, or joins one, is written down a moment after it starts. Until then its authorities
	// would be ended as those of a lost member; and one that was removed must not begin any.
	members, err := m.config.Members(m.config.Store.View())
	if err != nil || !slices.Contains(members, m.config.Member) {
		return nil, plan.Never, err
	}
	if err := m.ensureHome(ctx); err != nil {
		return nil, plan.Never, err
	}
	rows, err := table.Domains.List(m.config.Store.View(), "")
	for _, row := range rows {
		domains = append(domains, row.Key)
	}
	return domains, plan.Never, err
}

// tendOwn takes this member's authorities of every hosted domain through their states. It waits for nobody else: an upstream
// that hangs must not keep an authority that is there from becoming active, or one that has expired from being ended.
func (m *Manager) tendOwn(ctx context.Context) (next time.Time, err error) {
	domains, next, err := m.hosted(ctx)
	if err != nil {
		return plan.Never, err
	}
	var errs []error
	for _, td := range domains {
		at, err := m.tendDomain(ctx, td)
		if err != nil {
			// The other domains do not wait for this one.
			errs = append(errs, fmt.Errorf("authorities of %s: %w", td, err))
		}
		next = plan.Sooner(next, at)
	}
	return next, errors.Join(errs...)
}

// ensureHome creates the home domain where it is not there.
func (m *Manager) ensureHome(ctx context.Context) error {
	home := m.config.Home.Name()
	if hosted, err := table.Hosts(m.config.Store.View(), home); err != nil || hosted {
		return err
	}
	_, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if hosted, err := table.Hosts(tx, home); err != nil || hosted {
			return err
		}
		domain := &statev1.Domain{TrustDomain: home, CreateTime: timestamppb.New(m.config.Now())}
		table.SetSettings(domain, m.config.Defaults)
		return table.Domains.Put(tx, home, domain)
	})
	if err != nil {
		return fmt.Errorf("create the home domain %s: %w", home, err)
	}
	return nil
}

// tendDomain carries out plans for one domain, but for what is to be prepared, until there is nothing to do, and says when
// there will be.
func (m *Manager) tendDomain(ctx context.Context, td string) (time.Time, error) {
	for range maxRounds {
		view := m.config.Store.View()
		domain, ok, err := table.Domains.Get(view, td)
		if err != nil || !ok {
			return plan.Never, err
		}
		s, _, err := m.situation(view, domain.Value, m.config.Now())
		if err != nil {
			return plan.Never, err
		}
		s.Peers = m.peersOf(ctx, td, s, false)
		actions, next := plan.Next(s)
		if !slices.ContainsFunc(actions, func(a plan.Action) bool { return a.Do != plan.Prepare }) {
			return next, nil
		}
		if err := m.update(ctx, td, func(tx *raftstore.Tx) ([]done, error) { return m.carryOut(tx, td, nil, s.Peers) }); err != nil {
			return plan.Never, err
		}
	}
	return m.config.Now().Add(lastRetry), nil
}

// tendLost does for the leader what nobody else will.
func (m *Manager) tendLost(ctx context.Context) (next time.Time, err error) {
	if !m.config.Contact.ClockSane() {
		return m.config.Now().Add(clockCheck), nil
	}
	domains, err := table.Domains.List(m.config.Store.View(), "")
	if err != nil {
		return plan.Never, err
	}
	for _, domain := range domains {
		td := domain.Key
		actions, at, err := m.planForLost(m.config.Store.View(), domain.Value, m.config.Now())
		if err != nil {
			return plan.Never, err
		}
		if len(actions) > 0 {
			if err := m.update(ctx, td, func(tx *raftstore.Tx) ([]done, error) { return m.carryOutLost(tx, td) }); err != nil {
				return plan.Never, err
			}
			if _, at, err = m.planForLost(m.config.Store.View(), domain.Value, m.config.Now()); err != nil {
				return plan.Never, err
			}
		}
		next = plan.Sooner(next, at)
	}
	return next, nil
}

// changeAuthorities is what the audit log calls a transaction that carries out part of a plan.
const changeAuthorities = "change authorities"

// update runs a transaction that carries out part of a plan, between its lines in the audit log.
func (m *Manager) update(ctx context.Context, td string, fn func(*raftstore.Tx) ([]done, error)) error {
	if err := m.intend(td); err != nil {
		return err
	}
	return m.carry(ctx, td, fn)
}

// intend writes the line before a change of a domain's authorities. What cannot be audited is not begun.
func (m *Manager) intend(td string) error {
	err := m.config.Audit.Record(access.Event{Caller: "authority", Action: changeAuthorities, Object: td, Result: access.ResultBegun})
	if err != nil {
		return fmt.Errorf("nothing was changed, since the audit log cannot be written: %w", err)
	}
	return nil
}

// failed writes the line after a change that was not made.
func (m *Manager) failed(td string, err error) error {
	return m.config.Audit.Record(access.Event{
		Caller: "authority", Action: changeAuthorities, Object: td, Result: access.ResultFailed, Detail: err.Error(),
	})
}

// carry runs the transaction, and writes the lines after it.
func (m *Manager) carry(ctx context.Context, td string, fn func(*raftstore.Tx) ([]done, error)) error {
	var carried []done
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) (err error) {
		carried, err = fn(tx)
		return err
	})
	if err != nil {
		return errors.Join(err, m.failed(td, err))
	}
	return m.report(td, carried, revision)
}

// report tells the log, the metrics and the audit log what was done to a domain's authorities.
func (m *Manager) report(td string, carried []done, revision raftstore.Revision) error {
	for _, d := range carried {
		what := "authority"
		if d.anchor != nil {
			what = "anchor"
		}
		m.log.Info(string(d.Do)+" "+what, "trust_domain", td, "kind", d.Kind, "id", d.ID, "why", d.Why, "revision", revision)
		if d.Do == plan.Verb(plan.HoldAnchor) {
			m.log.Warn("a new anchor of the upstream waits for approval, and nothing is signed below it; if it is meant to be, approve it", "trust_domain", td,
				"anchor", d.ID, "subject", d.anchor.Subject, "run", fmt.Sprintf("entente authority approve %s --domain %s", d.ID, td))
		}
		if d.Alarm {
			m.metrics.forced.WithLabelValues(td, d.Kind.String()).Inc()
			m.log.Error("an authority had to become active before everybody can know it; look at refresh_hint, ca_ttl and the upstream", "trust_domain", td, "kind", d.Kind, "id", d.ID)
		}
		detail := fmt.Sprintf("%s %s %s: %s", d.Kind, what, d.ID, d.Why)
		if d.Sequence > 0 {
			detail = fmt.Sprintf("%s; bundle sequence %d", detail, d.Sequence)
		}
		if err := m.config.Audit.Record(access.Event{
			Caller: "authority", Action: string(d.Do) + " " + what, Object: td, Result: access.ResultDone,
			Revision: uint64(revision), Detail: detail, Durable: true,
		}); err != nil {
			return fmt.Errorf("write the audit log: %w", err)
		}
	}
	return nil
}
