// Package journal runs the transactions that change the authorities of a hosted domain, between their lines in the
// audit log, and reports each step to log, metrics and audit log.
//
// A change that cannot be recorded is not begun.
package journal

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
)

// action is the name of such a transaction in the audit log.
const action = "change authorities"

// Step is an action that a transaction carried out.
type Step struct {
	plan.Action
	// Anchor is set if the action concerns an anchor of the upstream instead of an authority.
	Anchor *x509.Certificate
	// Sequence is the sequence of the bundle that the transaction published, 0 if none.
	Sequence uint64
	// Inherits is true for a prepared authority that an earlier publication already verifies.
	Inherits bool
}

// Audit records one event in the audit log. An action whose event is refused is not carried out.
type Audit interface {
	Record(access.Event) error
}

// Journal runs and reports changes. All fields are required.
type Journal struct {
	Store *raftstore.Store
	Audit Audit
	Log   hclog.Logger
	// Forced counts activations before every reader could know the authority, by trust domain and kind.
	Forced *prometheus.CounterVec
}

// Change records the intent, runs the transaction and reports its steps.
func (j *Journal) Change(ctx context.Context, td string, fn func(*raftstore.Tx) ([]Step, error)) error {
	if err := j.Begin(td); err != nil {
		return err
	}
	return j.Commit(ctx, td, fn)
}

// Begin records the intent to change a domain's authorities. It precedes a [Journal.Commit] or [Journal.Abandon].
func (j *Journal) Begin(td string) error {
	err := j.Audit.Record(access.Event{Caller: "authority", Action: action, Object: td, Result: access.ResultBegun})
	if err != nil {
		return fmt.Errorf("nothing was changed, since the audit log cannot be written: %w", err)
	}
	return nil
}

// Abandon records that a change was begun and not made.
func (j *Journal) Abandon(td string, err error) error {
	return j.Audit.Record(access.Event{
		Caller: "authority", Action: action, Object: td, Result: access.ResultFailed, Detail: err.Error(),
	})
}

// Commit runs the transaction and reports its steps, or records its failure.
func (j *Journal) Commit(ctx context.Context, td string, fn func(*raftstore.Tx) ([]Step, error)) error {
	var steps []Step
	revision, err := j.Store.Update(ctx, func(tx *raftstore.Tx) (err error) {
		steps, err = fn(tx)
		return err
	})
	if err != nil {
		return errors.Join(err, j.Abandon(td, err))
	}
	return j.Report(td, steps, revision)
}

// Report writes the steps of a committed transaction to log, metrics and audit log.
func (j *Journal) Report(td string, steps []Step, revision raftstore.Revision) error {
	for _, s := range steps {
		what := "authority"
		if s.Anchor != nil {
			what = "anchor"
		}
		j.Log.Info(string(s.Do)+" "+what, "trust_domain", td, "kind", s.Kind, "id", s.ID, "why", s.Why, "revision", revision)
		if s.Do == plan.Verb(plan.HoldAnchor) {
			j.Log.Warn("a new anchor of the upstream waits for approval, and nothing is signed below it; approve it if it is expected",
				"trust_domain", td, "anchor", s.ID, "subject", s.Anchor.Subject,
				"run", fmt.Sprintf("entente authority approve %s --domain %s", s.ID, td))
		}
		if s.Alarm {
			j.Forced.WithLabelValues(td, s.Kind.String()).Inc()
			j.Log.Error("an authority became active before every reader of the bundle can know it; check refresh_hint, ca_ttl and the upstream",
				"trust_domain", td, "kind", s.Kind, "id", s.ID)
		}
		detail := fmt.Sprintf("%s %s %s: %s", s.Kind, what, s.ID, s.Why)
		if s.Sequence > 0 {
			detail = fmt.Sprintf("%s; bundle sequence %d", detail, s.Sequence)
		}
		if err := j.Audit.Record(access.Event{
			Caller: "authority", Action: string(s.Do) + " " + what, Object: td, Result: access.ResultDone,
			Revision: uint64(revision), Detail: detail, Durable: true,
		}); err != nil {
			return fmt.Errorf("write the audit log: %w", err)
		}
	}
	return nil
}
