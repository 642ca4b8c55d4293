package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

const actionState = "state bundle version"

// stated is what this member knows of a domain's chain since it last looked.
type stated struct {
	revision raftstore.Revision
	// number is of the newest version whose statement it has seen; known: it has looked before.
	number uint64
	known  bool
}

// tendStatements signs what the members that made versions could not sign themselves: they had no key that the version before
// names, as one that has just joined, or keep it where a transaction does not reach. It runs on every member; the first
// signature of a version counts.
func (m *Manager) tendStatements(ctx context.Context) (next time.Time, err error) {
	view := m.config.Store.View()
	domains, err := table.Domains.List(view, "")
	if err != nil {
		return plan.Never, err
	}
	if m.states == nil {
		m.states = map[string]stated{}
	}
	var errs []error
	for _, domain := range domains {
		td := domain.Key
		at := HostedHistory.PrefixRevision(view, table.DomainPrefix(td))
		if seen := m.states[td]; seen.known && seen.revision == at {
			continue
		}
		waiting, err := m.tendStatementsOf(ctx, td)
		if err != nil {
			errs = append(errs, fmt.Errorf("statements on the bundle of %s: %w", td, err))
			continue
		}
		if waiting {
			next = plan.Sooner(next, m.config.Now().Add(firstRetry)) // for the member whose turn it is, or until it is lost
			continue
		}
		if err := m.noteStatements(td); err != nil {
			errs = append(errs, err)
		}
	}
	return next, errors.Join(errs...)
}

// tendStatementsOf signs until nothing is due any more that is this member's to sign. waiting says that something is due.
func (m *Manager) tendStatementsOf(ctx context.Context, td string) (waiting bool, err error) {
	for range statement.HostedDepth.Versions {
		view := m.config.Store.View()
		versions, err := History(view, td)
		if err != nil {
			return false, err
		}
		now := m.config.Now()
		d, err := m.dueStatement(view, td, versions, now, false)
		if err != nil || d == nil {
			return false, err
		}
		if may := m.canSign(); d.turn.wait || may != nil {
			return true, nil //nolint:nilerr // it can by and by, when this member hears from the leader again
		}
		if err := m.stateLater(ctx, td, d, now); err != nil {
			return false, err
		}
	}
	return true, nil
}

// stateLater signs outside of a transaction, with a key that can be anywhere, and writes the statement if what it says is still
// what is to be said.
func (m *Manager) stateLater(ctx context.Context, td string, d *draft, now time.Time) error {
	line := access.Event{Caller: "authority", Action: actionState, Object: td, Result: access.ResultBegun, Detail: fmt.Sprintf("sequence %d", d.version.GetSequence())}
	if err := m.config.Audit.Record(line); err != nil {
		return fmt.Errorf("nothing was signed, since the audit log cannot be written: %w", err)
	}
	stmt := ""
	if d.unstated == "" {
		s, err := m.signStatement(d)
		if err != nil {
			return err
		}
		stmt = s.String()
	}
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		versions, err := History(tx, td)
		if err != nil {
			return err
		}
		again, err := m.dueStatement(tx, td, versions, now, false)
		if err != nil || again == nil || !sameDraft(d, again) {
			return err // somebody else was faster, or a key was distrusted meanwhile: the next round plans anew
		}
		again.version.Statement, again.version.Unstated = stmt, d.unstated
		return HostedHistory.Put(tx, versionKey(td, again.version.GetNumber()), again.version)
	})
	line.Result, line.Revision = access.ResultDone, uint64(revision)
	if err != nil {
		line.Result, line.Detail = access.ResultFailed, err.Error()
	}
	return errors.Join(err, m.config.Audit.Record(line))
}

// noteStatements tells log and metrics of what is new in a domain's chain. Every member does, of what it sees committed.
func (m *Manager) noteStatements(td string) error {
	view := m.config.Store.View()
	seen := m.states[td]
	versions, err := History(view, td)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.GetNumber() <= seen.number {
			continue
		}
		seen.number = v.GetNumber()
		if seen.known {
			m.noteVersion(td, v)
		}
	}
	seen.known, seen.revision = true, HostedHistory.PrefixRevision(view, table.DomainPrefix(td))
	m.states[td] = seen
	return nil
}

func (m *Manager) noteVersion(td string, v *statev1.BundleVersion) {
	if v.GetUnstated() != "" {
		m.metrics.chains.WithLabelValues(td, "unstated").Inc()
		m.log.Warn("a version of a bundle has no statement, and the chain of statements starts anew behind it", "trust_domain", td,
			"sequence", v.GetSequence(), "why", v.GetUnstated())
		return
	}
	s, err := statement.Parse(v.GetStatement())
	if err != nil {
		return
	}
	if start := s.Claims().Start; s.Starts() && start != statement.StartFirst {
		m.metrics.chains.WithLabelValues(td, "started").Inc()
		m.log.Warn("the chain of statements on a bundle starts anew: peers raise the alarm new_chain, and their operators need your word that it is no forgery",
			"trust_domain", td, "sequence", v.GetSequence(), "why", start)
	}
}
