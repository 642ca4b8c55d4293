package intake

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/span"
	"github.com/ententehq/entente/raftstore"
)

// Outcome is the result of an attempt to bring a relationship up to date.
type Outcome struct {
	// Result is one of a bounded set of names.
	Result string
	Err    error
	// Waited is for how long the attempt waited for the peer.
	Waited time.Duration
}

// Local reports whether an attempt failed for a reason that is not the peer's.
func (o Outcome) Local() bool {
	return o.Result == "not_stored" || o.Result == "not_audited" || o.Result == "superseded"
}

// Keep stores a bundle that was accepted, if everything that led to the decision is unchanged. Otherwise it returns
// [relationship.ErrSuperseded].
func (in *Intake) Keep(
	ctx context.Context,
	name string,
	b Basis,
	next *bundle.Bundle,
) (revision raftstore.Revision, err error) {
	var raised []relationship.Alarm
	ctx, storing := span.StartOn(ctx, versionOf(next), "store bundle", attribute.String("entente.source", b.Source))
	defer func() { span.End(storing, err) }()
	err = audit.Do(in.config.Audit, audit.Event{
		Caller: Caller, Action: ActionAccept, Object: name, Detail: Describe(next),
	}, func(line *audit.Event) error {
		revision, err = in.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
			now, err := in.BasisOf(tx, name)
			if err != nil {
				return err
			}
			if !now.sameAs(b) {
				return relationship.ErrSuperseded
			}
			// The basis is the one that Accept decided on. Accept runs again, because the transaction is what counts.
			if err := now.Current.Accept(next); err != nil {
				return err
			}
			now.Source = b.Source
			raised, err = in.put(tx, now, next, in.config.Now())
			return err
		})
		if err != nil {
			line.Detail = relationship.Clip(err.Error())
			return err
		}
		line.Revision = uint64(revision)
		return nil
	})
	if err != nil {
		return 0, err
	}
	in.Announce(name, raised, revision)
	return revision, nil
}

// versionOf returns the version of a bundle whose spans are in one trace.
func versionOf(b *bundle.Bundle) span.Bundle {
	sequence, ordered := b.Sequence()
	return span.Bundle{TrustDomain: b.TrustDomain().Name(), Sequence: sequence, Unordered: !ordered, Digest: b.Digest()}
}

// put writes a bundle, the validity of its relationship where it changes, and an alarm where hubs show another bundle.
func (in *Intake) put(tx *raftstore.Tx, b Basis, next *bundle.Bundle, now time.Time) ([]relationship.Alarm, error) {
	name := b.Row.GetTrustDomain()
	validity, err := in.putBundle(tx, b, next, now)
	if err != nil {
		return nil, err
	}
	split, err := relationship.AgainstHubs(tx, name, statement.ViewOf(next, b.Origin()))
	if err != nil {
		return nil, err
	}
	raised := relationship.Raise(b.Row, split, timestamppb.New(now))
	if validity == b.Rel.Validity && len(raised) == 0 {
		return nil, nil
	}
	b.Row.Validity = validity.Row(now)
	return raised, relationship.Relationships.Put(tx, name, b.Row)
}

// putBundle writes a bundle that was confirmed at now, and returns its validity.
func (in *Intake) putBundle(
	tx *raftstore.Tx,
	b Basis,
	next *bundle.Bundle,
	now time.Time,
) (relationship.Validity, error) {
	changed := now
	current, err := b.Current.Bundle()
	if err != nil {
		return relationship.Validity{}, err
	}
	if current != nil && current.SameKeys(next) && b.Current.Row.GetChangeTime().IsValid() {
		changed = b.Current.Row.GetChangeTime().AsTime() // another sequence or hint is no other content
	}
	if err := relationship.RecordVersion(tx, next, b.Origin(), b.Reset, now); err != nil {
		return relationship.Validity{}, err
	}
	row := next.Row(changed)
	row.RetrieveTime = timestamppb.New(now)
	holding := relationship.NewHolding(next, changed, tx.Revision()+1)
	validity := relationship.Judge(now, holding.Facts(b.Rel, now, in.config.MinRefresh))
	return validity, relationship.ForeignBundles.Put(tx, next.TrustDomain().Name(), row)
}

// Write writes a relationship as an operator or an agreement decides it, with the bundle to begin with, if any. That
// bundle is as fresh as a confirmed one and clears the alarms.
func (in *Intake) Write(tx *raftstore.Tx, b Basis, bootstrap *bundle.Bundle, now time.Time) error {
	if bootstrap != nil {
		validity, err := in.putBundle(tx, b, bootstrap, now)
		if err != nil {
			return err
		}
		validity.Bootstrap = !b.Rel.Static // no endpoint can confirm it
		b.Row.Validity, b.Row.Alarms = validity.Row(now), nil
	}
	return relationship.Relationships.Put(tx, b.Row.GetTrustDomain(), b.Row)
}

// Describe summarizes a bundle for the audit log.
func Describe(b *bundle.Bundle) string {
	digest := b.Digest()
	sequence := "no sequence"
	if n, ok := b.Sequence(); ok {
		sequence = fmt.Sprintf("sequence %d", n)
	}
	return fmt.Sprintf("%s, %d X.509 and %d JWT authorities, digest %s", sequence, len(b.X509Authorities()),
		len(b.JWTAuthorities()), hex.EncodeToString(digest[:]))
}
