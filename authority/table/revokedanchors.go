package table

import (
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/raftstore"
)

// An anchor that was revoked is written down until it would have expired, apart from the authorities below it: an
// upstream that was not told goes on to sign below it, and hands it out with what it signs.

// revokeAnchor writes down that the anchor of an authority must not be in the bundle, and notes it with the authority.
func revokeAnchor(tx *raftstore.Tx, row *statev1.Authority, now time.Time) error {
	anchor, err := AnchorOf(row)
	if err != nil {
		return err
	}
	row.AnchorRevoked = true
	return PutRevokedAnchor(tx, row.GetTrustDomain(), anchor, now)
}

func PutRevokedAnchor(tx *raftstore.Tx, td string, anchor *x509.Certificate, now time.Time) error {
	if err := UpstreamAnchors.Delete(tx, AnchorKey(td, anchor.Raw)); err != nil {
		return err
	}
	return RevokedAnchors.Put(tx, AnchorKey(td, anchor.Raw), &statev1.RevokedAnchor{
		TrustDomain: td, KeyId: svid.AnchorID(anchor), RevokeTime: timestamppb.New(now), NotAfter: timestamppb.New(anchor.NotAfter),
	})
}

// revokedOf says which anchors of a domain were revoked.
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

// belowRevoked says whether the chain of an authority leads to an anchor that was revoked.
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

// keepRevokedAnchors keeps a restore from giving an anchor back.
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

// forgetExpiredAnchors removes what is of no more use, since no verifier accepts the anchor anyway.
func ForgetExpiredAnchors(tx *raftstore.Tx, now time.Time) error {
	rows, err := RevokedAnchors.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if now.Before(TimeOf(row.Value.GetNotAfter()).Add(plan.ClockTolerance)) {
			continue
		}
		if err := RevokedAnchors.Delete(tx, row.Key); err != nil {
			return err
		}
	}
	return nil
}
