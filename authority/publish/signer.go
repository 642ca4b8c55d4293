package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// ActionSign is the action in the audit log of a statement that [Signer] signs.
const ActionSign = "state bundle version"

// Signer signs the statements that the transactions of other members left due: such a member had no key that the
// previous version names, as after it joined, or keeps its keys outside of its memory. It runs on every member, and the
// first committed signature of a version counts. It also logs where a chain restarts.
type Signer struct {
	publisher *Publisher
	store     *raftstore.Store
	recorder  audit.Recorder
	canSign   func() error
	now       func() time.Time
	log       hclog.Logger
	chains    *prometheus.CounterVec
	// domains is what was seen of each chain. Only Reconcile uses it.
	domains map[string]progress
}

// progress is the part of a domain's chain that this member has seen.
type progress struct {
	revision raftstore.Revision
	// number is the newest version whose statement was seen. known is false before the first look.
	number uint64
	known  bool
}

// NewSigner returns a signer. canSign returns the reason for which this member must not sign now, or nil. A nil r
// leaves the metrics unregistered.
func NewSigner(
	p *Publisher, store *raftstore.Store, recorder audit.Recorder, canSign func() error, now func() time.Time,
	log hclog.Logger, r prometheus.Registerer,
) (*Signer, error) {
	s := &Signer{
		publisher: p, store: store, recorder: recorder, canSign: canSign, now: now, log: log,
		domains: map[string]progress{},
		chains: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_statement_chains_total",
			Help: "Restarts of the chain of statements on a hosted bundle that this member saw (started), and " +
				"versions without a statement (unstated).",
		}, []string{"trust_domain", "event"}),
	}
	if r == nil {
		return s, nil
	}
	return s, r.Register(s.chains)
}

// Reconcile signs what is due on all hosted bundles, and returns the time of the next run.
func (s *Signer) Reconcile(ctx context.Context) (next time.Time, err error) {
	view := s.store.View()
	domains, err := table.Domains.List(view, "")
	if err != nil {
		return plan.Never, err
	}
	var errs []error
	for _, domain := range domains {
		td := domain.Key
		at := table.HostedHistory.PrefixRevision(view, table.DomainPrefix(td))
		if seen := s.domains[td]; seen.known && seen.revision == at {
			continue
		}
		waiting, err := s.signDomain(ctx, td)
		if err != nil {
			errs = append(errs, fmt.Errorf("statements on the bundle of %s: %w", td, err))
			continue
		}
		if waiting { // for the member that signs, or until that one is lost
			next = plan.Sooner(next, s.now().Add(loop.FirstRetry))
			continue
		}
		if err := s.report(td); err != nil {
			errs = append(errs, err)
		}
	}
	return next, errors.Join(errs...)
}

// signDomain signs until nothing is due that this member can sign. waiting is true if something is still due.
func (s *Signer) signDomain(ctx context.Context, td string) (waiting bool, err error) {
	for range statement.HostedDepth.Versions {
		view := s.store.View()
		versions, err := History(view, td)
		if err != nil {
			return false, err
		}
		now := s.now()
		d, err := s.publisher.nextDraft(view, td, versions, now, false)
		if err != nil || d == nil {
			return false, err
		}
		if refused := s.canSign(); d.choice.wait || refused != nil {
			return true, nil //nolint:nilerr // it can sign once this member is in contact with the leader again
		}
		if err := s.signLater(ctx, td, d, now); err != nil {
			return false, err
		}
	}
	return true, nil
}

// signLater signs outside of a transaction, with a key that can be anywhere. It stores the statement if the same draft
// is still due.
func (s *Signer) signLater(ctx context.Context, td string, d *draft, now time.Time) error {
	event := audit.Event{
		Caller: "authority", Action: ActionSign, Object: td,
		Detail: fmt.Sprintf("sequence %d", d.version.GetSequence()),
	}
	return audit.Do(s.recorder, event, func(line *audit.Event) error {
		text := ""
		if d.unstated == "" {
			signed, err := s.publisher.sign(d)
			if err != nil {
				return err
			}
			text = signed.String()
		}
		revision, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
			versions, err := History(tx, td)
			if err != nil {
				return err
			}
			again, err := s.publisher.nextDraft(tx, td, versions, now, false)
			if err != nil || again == nil || !sameDraft(d, again) {
				return err // another member was faster, or a key was distrusted: the next round drafts again
			}
			again.version.Statement, again.version.Unstated = text, d.unstated
			return table.HostedHistory.Put(tx, versionKey(td, again.version.GetNumber()), again.version)
		})
		line.Revision = uint64(revision)
		return err
	})
}

// report counts and logs what is new in a domain's chain. Every member does, for what it sees committed.
func (s *Signer) report(td string) error {
	view := s.store.View()
	seen := s.domains[td]
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
			s.reportVersion(td, v)
		}
	}
	seen.known, seen.revision = true, table.HostedHistory.PrefixRevision(view, table.DomainPrefix(td))
	s.domains[td] = seen
	return nil
}

func (s *Signer) reportVersion(td string, v *statev1.BundleVersion) {
	if v.GetUnstated() != "" {
		s.chains.WithLabelValues(td, "unstated").Inc()
		s.log.Warn("a version of a bundle has no statement; the chain of statements restarts after it",
			"trust_domain", td, "sequence", v.GetSequence(), "why", v.GetUnstated())
		return
	}
	parsed, err := statement.Parse(v.GetStatement())
	if err != nil {
		return
	}
	if start := parsed.Claims().Start; parsed.Starts() && start != statement.StartFirst {
		s.chains.WithLabelValues(td, "started").Inc()
		s.log.Warn(
			"the chain of statements on a bundle restarts: peers raise the alarm new_chain; confirm to their "+
				"operators that it is no forgery",
			"trust_domain", td, "sequence", v.GetSequence(), "why", start)
	}
}
