package publish

import (
	"context"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/span"
	"github.com/ententehq/entente/raftstore"
)

// Publisher writes hosted bundles inside transactions. All fields are required. Its methods can be called from any
// goroutine.
type Publisher struct {
	Member string
	// Keys are the keys of this member, with which it signs statements.
	Keys keys.Store
	// Alive returns the IDs of the members that the leader counts as alive.
	Alive func(raftstore.Reader) ([]string, error)
}

// Publish updates the bundle of a hosted domain from the rows of the transaction. It returns the new sequence, or 0 if
// the document did not change.
func (p *Publisher) Publish(tx *raftstore.Tx, domain *statev1.Domain, now time.Time) (sequence uint64, err error) {
	td, err := bundle.ParseTrustDomain(domain.GetTrustDomain())
	if err != nil {
		return 0, err
	}
	content, err := readContent(tx, td.Name())
	if err != nil {
		return 0, err
	}
	current, err := HostedBundle(tx, td.Name())
	if err != nil {
		return 0, err
	}
	past, _, err := table.PastSequences.Get(tx, td.Name())
	if err != nil {
		return 0, err
	}
	next, err := nextVersion(td, current, past.Value.GetSequence(), content, domain.GetRefreshHint().AsDuration())
	if err != nil || next == nil {
		return 0, err
	}
	sequence, _ = next.Sequence()
	return sequence, p.put(tx, next, now)
}

// Republish writes the bundle of a hosted domain with the given sequence, whether or not its content changed.
func (p *Publisher) Republish(tx *raftstore.Tx, domain *statev1.Domain, sequence uint64, now time.Time) error {
	td, err := bundle.ParseTrustDomain(domain.GetTrustDomain())
	if err != nil {
		return err
	}
	content, err := readContent(tx, td.Name())
	if err != nil {
		return err
	}
	hint := domain.GetRefreshHint().AsDuration()
	content.Sequence, content.RefreshHint = &sequence, &hint
	b, err := bundle.New(td, content)
	if err != nil {
		return err
	}
	return p.put(tx, b, now)
}

// put writes a version of a hosted bundle, its entry in the history, and its statement.
func (p *Publisher) put(tx *raftstore.Tx, b *bundle.Bundle, now time.Time) error {
	td := b.TrustDomain().Name()
	if err := table.HostedBundles.Put(tx, td, b.Row(now)); err != nil {
		return err
	}
	sequence, _ := b.Sequence()
	tx.OnCommit(func(ctx context.Context) {
		span.Publish(ctx, span.Bundle{TrustDomain: td, Sequence: sequence}).End()
	})
	versions, err := record(tx, b, now)
	if err != nil {
		return err
	}
	return p.signVersions(tx, td, versions, now)
}

// Finish publishes the result of the steps, and records the sequence with the authorities and anchors that the bundle
// holds from then on. It returns the steps with that sequence.
func (p *Publisher) Finish(
	tx *raftstore.Tx, domain *statev1.Domain, steps []journal.Step, now time.Time,
) ([]journal.Step, error) {
	if len(steps) == 0 {
		return nil, nil
	}
	sequence, err := p.Publish(tx, domain, now)
	if err != nil || sequence == 0 {
		return steps, err
	}
	for i := range steps {
		steps[i].Sequence = sequence
	}
	return steps, recordSequence(tx, domain.GetTrustDomain(), steps, sequence)
}

// recordSequence writes the first sequence that holds a new authority or anchor into its row.
func recordSequence(tx *raftstore.Tx, td string, steps []journal.Step, sequence uint64) error {
	for _, s := range steps {
		switch {
		case s.Do == plan.Verb(plan.PublishAnchor):
			key := table.AnchorKey(td, s.Anchor.Raw)
			row, ok, err := table.UpstreamAnchors.Get(tx, key)
			if err != nil || !ok {
				return err
			}
			row.Value.PublishSequence = sequence
			if err := table.UpstreamAnchors.Put(tx, key, row.Value); err != nil {
				return err
			}
		case s.Do == plan.Prepare && !s.Inherits:
			key := table.AuthorityKey(td, s.ID)
			row, ok, err := table.Authorities.Get(tx, key)
			if err != nil || !ok {
				return err
			}
			row.Value.PublishSequence = sequence
			if err := table.Authorities.Put(tx, key, row.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// LastSequence returns the highest sequence that a domain ever had, as far as the state records it.
func LastSequence(r raftstore.Reader, td string) (uint64, error) {
	past, _, err := table.PastSequences.Get(r, td)
	if err != nil {
		return 0, err
	}
	b, err := HostedBundle(r, td)
	if err != nil || b == nil {
		return past.Value.GetSequence(), err
	}
	sequence, _ := b.Sequence()
	return max(sequence, past.Value.GetSequence()), nil
}
