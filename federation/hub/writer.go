package hub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

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
	// transactionBytes bounds the documents in one transaction. Each is written with the history of its domain, of at
	// most some 50 KiB, so that a transaction stays below the 512 KiB of a command. A single domain is written however
	// large it is.
	transactionBytes = 96 << 10
	// transactionRows bounds their number, for small histories.
	transactionRows = 32
)

// writer writes the changes that a reading has found.
type writer struct{ config Config }

// write writes all changes of a reading, in as many transactions as needed. It returns [relationship.ErrSuperseded] if
// something that the reading depends on has changed.
func (w writer) write(ctx context.Context, r *reading, b intake.Basis) error {
	superseded := false
	for some := range batches(r.changes) {
		done, err := w.writeBatch(ctx, r.hub, b, some)
		if errors.Is(err, raftstore.ErrTooLarge) {
			done, err = w.writeEach(ctx, r, b, some)
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

// writeEach writes each change by itself. A document that is too large even so is refused.
func (w writer) writeEach(ctx context.Context, r *reading, b intake.Basis, some []change) (done bool, err error) {
	done = true
	for _, ch := range some {
		one, err := w.writeBatch(ctx, r.hub, b, []change{ch})
		if errors.Is(err, raftstore.ErrTooLarge) {
			if ch = r.refuseLarge(ch, err); ch.refused == "" {
				continue // the refusal is stored already, or nothing is
			}
			one, err = w.writeBatch(ctx, r.hub, b, []change{ch})
		}
		if err != nil {
			return false, err
		}
		done = done && one
	}
	return done, nil
}

// batches divides changes into those that are written in one transaction, ordered by domain for a readable log.
func batches(changes []change) iter.Seq[[]change] {
	slices.SortFunc(changes, func(a, b change) int { return strings.Compare(a.td, b.td) })
	return func(yield func([]change) bool) {
		for len(changes) > 0 {
			n, size := 0, 0
			for n < len(changes) && n < transactionRows {
				if size += len(changes[n].document); n > 0 && size > transactionBytes {
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

// writeBatch writes changes in one transaction. done is false if a row was changed since the reading.
func (w writer) writeBatch(ctx context.Context, hub string, b intake.Basis, some []change) (done bool, err error) {
	// A refusal stores no bundle and has one audit line, afterwards. All other changes are not made without theirs.
	var lines []audit.Event
	lineOf := make([]int, len(some))
	for i, ch := range some {
		if ch.refused != "" {
			continue
		}
		line, err := ch.line(hub)
		if err != nil {
			return false, err
		}
		lineOf[i], lines = len(lines), append(lines, line)
	}
	written, raised := make([]bool, len(some)), make([][]relationship.Alarm, len(some))
	var revision raftstore.Revision
	err = audit.DoAll(w.config.Audit, lines, func(lines []audit.Event) error {
		if revision, err = w.update(ctx, hub, b, some, written, raised); err != nil {
			for i := range lines {
				lines[i].Detail = relationship.Clip(err.Error())
			}
			return err
		}
		for i, ch := range some {
			switch {
			case ch.refused != "":
			case written[i]:
				lines[lineOf[i]].Revision = uint64(revision)
			default:
				lines[lineOf[i]].Result, lines[lineOf[i]].Detail = audit.ResultFailed, "superseded"
			}
		}
		return nil
	})
	done = true
	for i, ch := range some {
		done = done && written[i]
		switch {
		case ch.refused != "" && err != nil:
			w.config.Intake.Record(intake.ActionRefuse, ch.td, audit.ResultFailed, relationship.Clip(err.Error()), 0)
		case ch.refused != "" && !written[i]:
			w.config.Intake.Record(intake.ActionRefuse, ch.td, audit.ResultFailed, "superseded", 0)
		case ch.refused != "":
			w.config.Intake.Record(
				intake.ActionRefuse,
				ch.td,
				ch.refused,
				fmt.Sprintf(detailRefused, hub, ch.refusal),
				revision,
			)
		case err == nil && written[i]:
			w.config.Intake.Announce(ch.td, raised[i], revision)
		}
	}
	return done, err
}

// line returns the audit line of a change that is no refusal.
func (ch change) line(hub string) (audit.Event, error) {
	e := audit.Event{
		Caller: intake.Caller,
		Action: intake.ActionAccept,
		Object: ch.td,
		Detail: fmt.Sprintf(detailOfHub, hub),
	}
	switch {
	case ch.withdrawn:
		e.Action, e.Detail = actionWithdraw, fmt.Sprintf(detailWithdrawn, hub)
	case len(ch.document) > 0:
		td, err := bundle.ParseTrustDomain(ch.td)
		if err != nil {
			return e, err
		}
		b, _, err := bundle.Parse(td, ch.document)
		if err != nil {
			return e, err
		}
		e.Detail += intake.Describe(b)
	}
	return e, nil
}

// update is the transaction. It sets which changes were written, and the alarms that they raised.
func (w writer) update(
	ctx context.Context, hub string, b intake.Basis, some []change, written []bool, raised [][]relationship.Alarm,
) (raftstore.Revision, error) {
	return w.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		clear(written)
		now, err := w.config.Intake.BasisOf(tx, hub)
		if errors.Is(err, relationship.ErrEnded) {
			return relationship.ErrSuperseded // the next attempt finds that it ended
		}
		if err != nil {
			return err
		}
		if now.Rel.Generation != b.Rel.Generation {
			return relationship.ErrSuperseded
		}
		for i, ch := range some {
			if written[i], raised[i], err = w.writeRow(tx, hub, now.Row, ch, w.config.Now()); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeRow writes the attestation of one domain, if its row is unchanged since the reading.
func (w writer) writeRow(
	tx *raftstore.Tx, hub string, rel *statev1.Relationship, ch change, now time.Time,
) (bool, []relationship.Alarm, error) {
	key := relationship.AttestationKey(ch.td, hub)
	row, found, err := relationship.HubBundles.Get(tx, key)
	if err != nil || row.Revision != ch.known {
		return false, nil, err
	}
	if ch.withdrawn {
		return true, nil, relationship.HubBundles.Delete(tx, key)
	}
	if attestable, err := w.config.Trust.Attestable(tx, ch.td); err != nil || !attestable {
		return false, nil, err
	}
	attestation := row.Value
	if !found || !relationship.AttestedUnder(rel, attestation) {
		attestation = &statev1.HubBundle{TrustDomain: ch.td, Hub: hub}
	}
	attestation.RelationshipCreateTime = rel.GetCreateTime()
	attestation.Refused, attestation.Refusal = ch.refused, ch.refusal
	var raised []relationship.Alarm
	if len(ch.document) > 0 {
		if raised, err = setDocument(tx, attestation, ch.document, now); err != nil {
			return false, nil, err
		}
	}
	return true, raised, relationship.HubBundles.Put(tx, key, attestation)
}

// setDocument sets a new document in an attestation, and compares it with what the domain itself and other hubs show.
func setDocument(tx *raftstore.Tx, a *statev1.HubBundle, document []byte, now time.Time) ([]relationship.Alarm, error) {
	before := a.GetDocument()
	a.Document = document
	next, err := relationship.HubBundle(a)
	if err != nil {
		return nil, err
	}
	// If there was no document before, was is nil.
	was, _ := relationship.HubBundle(&statev1.HubBundle{TrustDomain: a.GetTrustDomain(), Document: before})
	if was == nil || !was.SameKeys(next) {
		a.ChangeTime = timestamppb.New(now)
	}
	a.RetrieveTime = timestamppb.New(now)
	holding := relationship.NewHolding(next, now, 0)
	a.X509Expired, a.NoJwt = now.After(holding.X509Until), holding.JwtKeys == 0
	if a.History == nil {
		a.History = &statev1.ForeignHistory{TrustDomain: a.GetTrustDomain()}
	}
	if err := relationship.AddVersion(a.GetHistory(), next, "hub "+a.GetHub(), false, now); err != nil {
		return nil, err
	}
	view := statement.ViewOf(next, "hub "+a.GetHub())
	raised, err := raiseOnDomain(tx, a.GetTrustDomain(), view, now)
	if err != nil {
		return nil, err
	}
	for other, err := range relationship.HubBundles.All(tx, a.GetTrustDomain()+"/") {
		if err != nil {
			return nil, err
		}
		if other.Value.GetHub() == a.GetHub() {
			continue
		}
		if split := relationship.SplitOf(other.Value.GetHistory(), view); split != nil {
			holder := &statev1.Relationship{Alarms: a.GetAlarms()}
			alarm := relationship.Alarm{
				Name:     relationship.AlarmSplitView,
				Sequence: view.Sequence,
				Detail:   split.Error(),
			}
			raised = append(raised, relationship.Raise(holder, []relationship.Alarm{alarm}, timestamppb.New(now))...)
			a.Alarms = holder.GetAlarms()
			break
		}
	}
	return raised, nil
}

// raiseOnDomain raises the alarm on the relationship with a domain, if there is one and the domain itself showed
// something else.
func raiseOnDomain(tx *raftstore.Tx, td string, view statement.View, now time.Time) ([]relationship.Alarm, error) {
	row, found, err := relationship.Relationships.Get(tx, td)
	if err != nil || !found {
		return nil, err
	}
	return relationship.RaiseSplit(tx, row, view, now)
}
