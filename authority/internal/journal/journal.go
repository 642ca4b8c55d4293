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

	"github.com/ententehq/entente/access/audit"
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

// Journal runs and reports changes. All fields are required.
type Journal struct {
	Store *raftstore.Store
	Audit audit.Recorder
	Log   hclog.Logger
	// Forced counts activations before every reader could know the authority, by trust domain and kind.
	Forced *prometheus.CounterVec
}

// Transaction is a transaction that returns the steps that it carried out.
type Transaction = func(*raftstore.Tx) ([]Step, error)

// Change runs a transaction that changes a domain's authorities, and reports its steps.
func (j *Journal) Change(ctx context.Context, td string, fn Transaction) error {
	return j.Around(td, func(commit func(context.Context, Transaction) error) error { return commit(ctx, fn) })
}

// Around runs an action that ends in at most one transaction, which it passes to commit. The intent is recorded before
// the action, and the steps of the transaction are reported after it.
func (j *Journal) Around(td string, do func(commit func(context.Context, Transaction) error) error) error {
	var steps []Step
	var revision raftstore.Revision
	err := audit.Do(
		j.Audit,
		audit.Event{Caller: "authority", Action: action, Object: td},
		func(line *audit.Event) error {
			return do(func(ctx context.Context, fn Transaction) error {
				var done []Step
				at, err := j.Store.Update(ctx, func(tx *raftstore.Tx) (err error) {
					done, err = fn(tx)
					return err
				})
				if err != nil {
					return err
				}
				steps, revision, line.Revision = done, at, uint64(at)
				return nil
			})
		},
	)
	return errors.Join(err, j.Report(td, steps, revision))
}

// Report writes the steps of a committed transaction to log, metrics and audit log.
func (j *Journal) Report(td string, steps []Step, revision raftstore.Revision) error {
	for _, s := range steps {
		what := "authority"
		if s.Anchor != nil {
			what = "anchor"
		}
		j.Log.Info(string(s.Do)+" "+what, "trust_domain", td, "kind", s.Kind, "id", s.ID, "why", s.Why, "revision",
			revision)
		if s.Do == plan.Verb(plan.HoldAnchor) {
			j.Log.Warn(
				"a new anchor of the upstream waits for approval, and nothing is signed below it; approve it if it "+
					"is expected",
				"trust_domain", td, "anchor", s.ID, "subject", s.Anchor.Subject, "run",
				fmt.Sprintf("entente authority approve %s --domain %s", s.ID, td))
		}
		if s.Alarm {
			j.Forced.WithLabelValues(td, s.Kind.String()).Inc()
			j.Log.Error(
				"an authority became active before every reader of the bundle can know it; check refresh_hint, "+
					"ca_ttl and the upstream",
				"trust_domain", td, "kind", s.Kind, "id", s.ID)
		}
		detail := fmt.Sprintf("%s %s %s: %s", s.Kind, what, s.ID, s.Why)
		if s.Sequence > 0 {
			detail = fmt.Sprintf("%s; bundle sequence %d", detail, s.Sequence)
		}
		if err := j.Audit.Record(audit.Event{
			Caller: "authority", Action: string(s.Do) + " " + what, Object: td, Result: audit.ResultDone,
			Revision: uint64(revision), Detail: detail, Durable: true,
		}); err != nil {
			return fmt.Errorf("write the audit log: %w", err)
		}
	}
	return nil
}
