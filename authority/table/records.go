package table

import (
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/raftstore"
)

// Two records outlive the rows of authorities.
//
// A revoked anchor is recorded until it would have expired: an upstream that does not know of the revocation continues
// to sign below it, and returns it with what it signs.
//
// A tainted or revoked authority is recorded until it has expired: its row goes with its domain, and a snapshot of the
// time before can contain it as a good one.

// distrustedKept is the time for which a distrusted authority is recorded after its expiry: the clock of a member that
// restores can be off by the tolerance, and so can that of the leader, which deletes the record.
const distrustedKept = 2 * plan.ClockTolerance

// revokeAnchor records that the anchor of an authority is revoked, and marks the row.
func revokeAnchor(tx *raftstore.Tx, row *statev1.Authority, now time.Time) error {
	anchor, err := AnchorOf(row)
	if err != nil {
		return err
	}
	row.AnchorRevoked = true
	return PutRevokedAnchor(tx, row.GetTrustDomain(), anchor, now)
}

// PutRevokedAnchor records that an anchor is revoked, and removes it from the upstream's anchors.
func PutRevokedAnchor(tx *raftstore.Tx, td string, anchor *x509.Certificate, now time.Time) error {
	if err := UpstreamAnchors.Delete(tx, AnchorKey(td, anchor.Raw)); err != nil {
		return err
	}
	return RevokedAnchors.Put(tx, AnchorKey(td, anchor.Raw), &statev1.RevokedAnchor{
		TrustDomain: td, KeyId: svid.AnchorID(anchor), RevokeTime: timestamppb.New(now),
		NotAfter: timestamppb.New(anchor.NotAfter),
	})
}

// MarkAnchorRevoked marks the authorities of the actions, whose anchor was revoked.
func MarkAnchorRevoked(tx *raftstore.Tx, td string, actions []plan.Action) error {
	for _, action := range actions {
		key := AuthorityKey(td, action.ID)
		row, ok, err := Authorities.Get(tx, key)
		if err != nil || !ok {
			return err
		}
		row.Value.AnchorRevoked = true
		if err := Authorities.Put(tx, key, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// RevokedSet returns a function that reports whether an anchor of the domain, in DER, was revoked.
func RevokedSet(r raftstore.Reader, td string) (func(anchor []byte) bool, error) {
	rows, err := RevokedAnchors.List(r, DomainPrefix(td))
	if err != nil {
		return nil, fmt.Errorf("list the revoked anchors of %s: %w", td, err)
	}
	keys := make(map[string]bool, len(rows))
	for _, row := range rows {
		keys[row.Key] = true
	}
	return func(anchor []byte) bool { return keys[AnchorKey(td, anchor)] }, nil
}

// BelowRevoked reports whether the chain of an authority leads to a revoked anchor.
func BelowRevoked(r raftstore.Reader, td string, row *statev1.Authority) (bool, error) {
	if len(row.GetAnchors()) == 0 {
		return false, nil
	}
	revoked, err := RevokedSet(r, td)
	if err != nil {
		return false, err
	}
	return revoked(row.GetAnchors()[0]), nil
}

// KeepRevokedAnchors keeps the records of revoked anchors over a restore.
func KeepRevokedAnchors(before *raftstore.View, tx *raftstore.Tx) error {
	for row, err := range RevokedAnchors.All(before, "") {
		if err != nil {
			return err
		}
		if err := RevokedAnchors.Put(tx, row.Key, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// distrust records that an authority of any kind is tainted or revoked. The successor of its member's root is revoked
// too: its key is as exposed as that of the authority, and nothing is signed below it yet.
func distrust(tx *raftstore.Tx, row *statev1.Authority, now time.Time) error {
	if _, err := DropSuccessors(tx, row.GetTrustDomain(), row.GetMember(), true, now); err != nil {
		return err
	}
	return Distrusted.Put(tx, AuthorityKey(row.GetTrustDomain(), row.GetId()), &statev1.Distrusted{
		TrustDomain: row.GetTrustDomain(), Id: row.GetId(), State: row.GetState(), Time: timestamppb.New(now),
		NotAfter: row.GetNotAfter(),
	})
}

// KeepDistrusted keeps the records of distrusted authorities over a restore.
func KeepDistrusted(before *raftstore.View, tx *raftstore.Tx) error {
	for row, err := range Distrusted.All(before, "") {
		if err != nil {
			return err
		}
		restored, ok, err := Distrusted.Get(tx, row.Key)
		if err != nil {
			return err
		}
		if ok && restored.Value.GetState() > row.Value.GetState() {
			continue // tainted now, revoked in the snapshot
		}
		if err := Distrusted.Put(tx, row.Key, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// RestoredVerb returns what has to be done with a restored authority: taint or revoke it as recorded, and otherwise
// retire it.
func RestoredVerb(tx *raftstore.Tx, td string, row *statev1.Authority) (plan.Verb, error) {
	if below, err := BelowRevoked(tx, td, row); err != nil || below {
		return plan.Revoke, err
	}
	record, ok, err := Distrusted.Get(tx, AuthorityKey(td, row.GetId()))
	if err != nil {
		return "", fmt.Errorf("look up whether authority %s of %s was revoked: %w", row.GetId(), td, err)
	}
	switch {
	case ok && plan.State(record.Value.GetState()) == plan.Revoked:
		return plan.Revoke, nil
	case ok && plan.State(record.Value.GetState()) == plan.Tainted:
		return plan.Taint, nil
	}
	return plan.Retire, nil
}

func anchorRecordExpires(row *statev1.RevokedAnchor) time.Time {
	return TimeOf(row.GetNotAfter()).Add(plan.ClockTolerance)
}

func distrustedRecordExpires(row *statev1.Distrusted) time.Time {
	return TimeOf(row.GetNotAfter()).Add(distrustedKept)
}

// RecordsExpire returns when the first of the two kinds of record expires, or [plan.Never].
func RecordsExpire(r raftstore.Reader) (next time.Time, err error) {
	for row, err := range RevokedAnchors.All(r, "") {
		if err != nil {
			return plan.Never, err
		}
		next = plan.Sooner(next, anchorRecordExpires(row.Value))
	}
	for row, err := range Distrusted.All(r, "") {
		if err != nil {
			return plan.Never, err
		}
		next = plan.Sooner(next, distrustedRecordExpires(row.Value))
	}
	return next, nil
}

// DeleteExpiredRecords deletes the records that have expired: no verifier accepts such an anchor or authority.
func DeleteExpiredRecords(tx *raftstore.Tx, now time.Time) error {
	if err := deleteExpired(tx, RevokedAnchors, now, anchorRecordExpires); err != nil {
		return err
	}
	return deleteExpired(tx, Distrusted, now, distrustedRecordExpires)
}

func deleteExpired[M proto.Message](
	tx *raftstore.Tx, table raftstore.Table[M], now time.Time, expires func(M) time.Time,
) error {
	rows, err := table.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if now.Before(expires(row.Value)) {
			continue
		}
		if err := table.Delete(tx, row.Key); err != nil {
			return err
		}
	}
	return nil
}
