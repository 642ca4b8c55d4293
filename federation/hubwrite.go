package federation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

const (
	// mapTransactionBytes bounds the documents that one transaction takes from a map. Each is written with the history of its domain, of
	// at most some 50 KiB, so that it stays below the 512 KiB of a command; a single domain is written however large it is.
	mapTransactionBytes = 96 << 10
	// mapTransactionRows does so for their number, with small histories.
	mapTransactionRows = 32
)

// The actions on what hubs say, in the audit log.
const (
	actionRefuseMap  = "refuse bundle map"
	actionWithdraw   = "withdraw bundle"
	detailWithdrawn  = "the hub %s vouches for it no more"
	detailOfHub      = "by the hub %s: "
	detailHubRefused = "by the hub %s: %s"
)

// writeMap writes what a map changes, in as many transactions as it takes. Each is consistent by itself: it says of whole domains
// what the hub says of them.
func (m *Manager) writeMap(ctx context.Context, r *reading, b basis) error {
	superseded := false
	for some := range inTransactions(sortedChanges(r.changes)) {
		done, err := m.writeSome(ctx, r.hub, b, some)
		if errors.Is(err, raftstore.ErrTooLarge) {
			done, err = m.writeEach(ctx, r, b, some)
		}
		if err != nil {
			return err
		}
		superseded = superseded || !done
	}
	if superseded {
		return relationship.ErrSuperseded
	}
	return nil
}

// writeEach writes each change by itself. A document that does not fit even so is held against the word on its domain alone.
func (m *Manager) writeEach(ctx context.Context, r *reading, b basis, some []mapChange) (done bool, err error) {
	done = true
	for _, c := range some {
		one, err := m.writeSome(ctx, r.hub, b, []mapChange{c})
		if errors.Is(err, raftstore.ErrTooLarge) {
			if c = r.refuseLarge(c, err); c.refused == "" {
				continue // nothing would be new
			}
			one, err = m.writeSome(ctx, r.hub, b, []mapChange{c})
		}
		if err != nil {
			return false, err
		}
		done = done && one
	}
	return done, nil
}

// refuseLarge is the refusal of what cannot be stored; none, where that is known or nothing is stored of the domain.
func (r *reading) refuseLarge(c mapChange, err error) mapChange {
	refusal := mapChange{td: c.td, known: c.known, refused: relationship.ReasonOf(err), refusal: relationship.Clip(err.Error())}
	r.count.Accepted--
	r.count.Refused++
	if r.firstRefused == "" {
		r.firstRefused = c.td + ": " + refusal.refusal
	}
	if known := r.known[c.td]; known == nil || !known.stands || known.refused == refusal.refused {
		return mapChange{td: c.td}
	}
	return refusal
}

// inTransactions cuts changes into those that are written together.
func inTransactions(changes []mapChange) func(yield func([]mapChange) bool) {
	return func(yield func([]mapChange) bool) {
		for len(changes) > 0 {
			n, size := 0, 0
			for n < len(changes) && n < mapTransactionRows {
				if size += len(changes[n].document); n > 0 && size > mapTransactionBytes {
					break
				}
				n++
			}
			if !yield(changes[:n]) {
				return
			}
			changes = changes[n:]
		}
	}
}

// writeSome is one transaction of them. done says that all were written: none of what led to them had changed.
func (m *Manager) writeSome(ctx context.Context, hub string, b basis, some []mapChange) (done bool, err error) {
	details := make([]string, len(some))
	for i, c := range some {
		if details[i], err = m.begin(hub, c); err != nil {
			return false, err
		}
	}
	written := make([]bool, len(some))
	raised := make([][]relationship.Alarm, len(some))
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		clear(written)
		now, err := m.basisOf(tx, hub)
		if errors.Is(err, relationship.ErrEnded) {
			return relationship.ErrSuperseded // whoever looks again finds that
		}
		if err != nil {
			return err
		}
		if now.Rel.Generation != b.Rel.Generation {
			return relationship.ErrSuperseded
		}
		for i, c := range some {
			if written[i], raised[i], err = m.writeWord(tx, hub, now.Row, c, m.now()); err != nil {
				return err
			}
		}
		return nil
	})
	done = true
	for i, c := range some {
		switch {
		case err != nil:
			m.intake.Record(c.action(), c.td, audit.ResultFailed, relationship.Clip(err.Error()), 0)
		case !written[i]:
			done = false
			m.intake.Record(c.action(), c.td, audit.ResultFailed, "superseded", 0)
		case c.refused != "":
			m.intake.Record(intake.ActionRefuse, c.td, c.refused, fmt.Sprintf(detailHubRefused, hub, c.refusal), revision)
		default:
			m.intake.Record(c.action(), c.td, audit.ResultDone, details[i], revision)
			m.intake.Announce(c.td, raised[i], revision)
		}
	}
	return done, err
}

func (c mapChange) action() string {
	switch {
	case c.gone:
		return actionWithdraw
	case c.refused != "":
		return intake.ActionRefuse
	}
	return intake.ActionAccept
}

// begin writes the line that goes before a change, without which it is not made.
func (m *Manager) begin(hub string, c mapChange) (detail string, err error) {
	switch {
	case c.gone:
		detail = fmt.Sprintf(detailWithdrawn, hub)
	case c.refused != "":
		return "", nil // it takes nothing in
	default:
		detail = fmt.Sprintf(detailOfHub, hub)
		if len(c.document) > 0 {
			td, err := bundle.ParseTrustDomain(c.td)
			if err != nil {
				return "", err
			}
			b, _, err := bundle.Parse(td, c.document)
			if err != nil {
				return "", err
			}
			detail += intake.Describe(b)
		}
	}
	if err := m.config.Audit.Record(audit.Event{Caller: intake.Caller, Action: c.action(), Object: c.td, Result: audit.ResultBegun, Detail: detail}); err != nil {
		return "", fmt.Errorf("%w: %w", audit.ErrUnaudited, err)
	}
	return detail, nil
}

// writeWord writes what a hub says of one domain, if what is stored of it is as it was when that was decided.
func (m *Manager) writeWord(tx *raftstore.Tx, hub string, agreement *statev1.Relationship, c mapChange, now time.Time) (bool, []relationship.Alarm, error) {
	key := relationship.AttestationKey(c.td, hub)
	row, found, err := relationship.HubBundles.Get(tx, key)
	if err != nil || row.Revision != c.known {
		return false, nil, err
	}
	if c.gone {
		return true, nil, relationship.HubBundles.Delete(tx, key)
	}
	if hosted, err := m.config.Trust.Hosted.Hosts(tx, c.td); err != nil || hosted {
		return false, nil, err
	}
	word := row.Value
	if !found || !relationship.AttestedUnder(agreement, word) {
		word = &statev1.HubBundle{TrustDomain: c.td, Hub: hub}
	}
	word.Agreed, word.Refused, word.Refusal = agreement.GetCreateTime(), c.refused, c.refusal
	var raised []relationship.Alarm
	if len(c.document) > 0 {
		if raised, err = m.putWord(tx, word, c.document, now); err != nil {
			return false, nil, err
		}
	}
	return true, raised, relationship.HubBundles.Put(tx, key, word)
}

// putWord puts a new document into what a hub says of a domain, and compares it with what the domain itself and other hubs say.
func (m *Manager) putWord(tx *raftstore.Tx, word *statev1.HubBundle, document []byte, now time.Time) ([]relationship.Alarm, error) {
	before := word.GetDocument()
	word.Document = document
	next, err := relationship.HubBundle(word)
	if err != nil {
		return nil, err
	}
	was, _ := relationship.HubBundle(&statev1.HubBundle{TrustDomain: word.GetTrustDomain(), Document: before}) // nil: it is the first
	if was == nil || !was.SameKeys(next) {
		word.ChangeTime = timestamppb.New(now)
	}
	word.RetrieveTime = timestamppb.New(now)
	held := relationship.NewHolding(next, now, 0)
	word.X509Expired, word.NoJwt = now.After(held.X509Until), held.JwtKeys == 0
	if word.History == nil {
		word.History = &statev1.ForeignHistory{TrustDomain: word.GetTrustDomain()}
	}
	if err := relationship.AddVersion(word.GetHistory(), next, "hub "+word.GetHub(), false, now); err != nil {
		return nil, err
	}
	view := statement.ViewOf(next, "hub "+word.GetHub())
	raised, err := raiseOnDomain(tx, word.GetTrustDomain(), view, now)
	if err != nil {
		return nil, err
	}
	for other, err := range relationship.HubBundles.All(tx, word.GetTrustDomain()+"/") {
		if err != nil {
			return nil, err
		}
		if other.Value.GetHub() == word.GetHub() {
			continue
		}
		if split := relationship.SplitOf(other.Value.GetHistory(), view); split != nil {
			holder := &statev1.Relationship{Alarms: word.GetAlarms()}
			raised = append(raised, relationship.Raise(holder, []relationship.Alarm{{Name: relationship.AlarmSplitView, Sequence: view.Sequence, Detail: split.Error()}}, timestamppb.New(now))...)
			word.Alarms = holder.GetAlarms()
			break
		}
	}
	return raised, nil
}

// raiseOnDomain raises the alarm on the relationship with a domain, where there is one and the domain itself showed something else.
func raiseOnDomain(tx *raftstore.Tx, td string, view statement.View, now time.Time) ([]relationship.Alarm, error) {
	row, found, err := relationship.Relationships.Get(tx, td)
	if err != nil || !found {
		return nil, err
	}
	return relationship.RaiseSplit(tx, row, view, now)
}

// surviveRestoreOfHubs carries what hubs said over a restore, like other foreign bundles: what a hub has withdrawn since stays withdrawn.
func surviveRestoreOfHubs(before, restored *raftstore.View, tx *raftstore.Tx) error {
	for row, err := range relationship.HubBundles.All(before, "") {
		if err != nil {
			return err
		}
		is, _, err := relationship.HubBundles.Get(restored, row.Key)
		if err != nil {
			return err
		}
		if _, agreed, err := relationship.Relationships.Get(restored, row.Value.GetHub()); err != nil {
			return err
		} else if agreed && !proto.Equal(is.Value, row.Value) {
			if err := relationship.HubBundles.Put(tx, row.Key, row.Value); err != nil {
				return err
			}
		}
	}
	return keepWithdrawn(before, restored, tx)
}

// keepWithdrawn takes out what the snapshot brings back of hubs that, under a relationship that stands, said so no more.
func keepWithdrawn(before, restored *raftstore.View, tx *raftstore.Tx) error {
	for row, err := range relationship.HubBundles.All(restored, "") {
		if err != nil {
			return err
		}
		_, said, err := relationship.HubBundles.Get(before, row.Key)
		if err != nil {
			return err
		}
		_, agreed, err := relationship.Relationships.Get(before, row.Value.GetHub())
		if err != nil {
			return err
		}
		if agreed && !said {
			if err := relationship.HubBundles.Delete(tx, row.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// sortedChanges puts them in the order of their domains, for a log that can be read.
func sortedChanges(changes []mapChange) []mapChange {
	slices.SortFunc(changes, func(a, b mapChange) int {
		switch {
		case a.td < b.td:
			return -1
		case a.td > b.td:
			return 1
		}
		return 0
	})
	return changes
}
