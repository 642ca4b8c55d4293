package table

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
)

// TimeOf returns a stored time, or [plan.Never] if it is absent.
func TimeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return plan.Never
	}
	return t.AsTime()
}

// AuthorityOf returns the authority that a row describes.
func AuthorityOf(row *statev1.Authority) plan.Authority {
	anchor := ""
	if len(row.GetAnchors()) > 0 {
		anchor = string(row.GetAnchors()[0])
	}
	return plan.Authority{
		Anchor: anchor, UpstreamAnchor: row.GetUpstreamAnchor(), AnchorRevoked: row.GetAnchorRevoked(),
		Held: row.GetHeld(), Reserve: row.GetReserve(), ID: row.GetId(),
		Member: row.GetMember(), Kind: plan.Kind(row.GetKind()),
		State: plan.State(row.GetState()), Number: row.GetNumber(),
		NotBefore: TimeOf(row.GetNotBefore()), NotAfter: TimeOf(row.GetNotAfter()),
		Ready: TimeOf(row.GetReadyTime()), Published: row.GetPublishSequence(),
		PublishedAt: TimeOf(row.GetPrepareTime()), Retired: TimeOf(row.GetRetireTime()),
		LongestSVID: row.GetLongestSvid().AsDuration(), Rotation: row.GetRotation(),
		AnchorRotation: row.GetAnchorRotation(), Ahead: row.GetAhead(),
	}
}

// The numbers of kinds and states are those in the rows.
var (
	_ = [1]struct{}{}[int(plan.X509)-int(statev1.AuthorityKind_AUTHORITY_KIND_X509)]
	_ = [1]struct{}{}[int(plan.JWT)-int(statev1.AuthorityKind_AUTHORITY_KIND_JWT)]
	_ = [1]struct{}{}[int(plan.Prepared)-int(statev1.AuthorityState_AUTHORITY_STATE_PREPARED)]
	_ = [1]struct{}{}[int(plan.Active)-int(statev1.AuthorityState_AUTHORITY_STATE_ACTIVE)]
	_ = [1]struct{}{}[int(plan.Retiring)-int(statev1.AuthorityState_AUTHORITY_STATE_RETIRING)]
	_ = [1]struct{}{}[int(plan.Tainted)-int(statev1.AuthorityState_AUTHORITY_STATE_TAINTED)]
	_ = [1]struct{}{}[int(plan.Revoked)-int(statev1.AuthorityState_AUTHORITY_STATE_REVOKED)]
)

// AuthoritiesOf returns the authorities that rows describe.
func AuthoritiesOf(rows []*statev1.Authority) []plan.Authority {
	all := make([]plan.Authority, len(rows))
	for i, row := range rows {
		all[i] = AuthorityOf(row)
	}
	return all
}

// ListAuthorities returns the rows of a domain's authorities, of every member.
func ListAuthorities(r raftstore.Reader, td string) ([]*statev1.Authority, error) {
	rows, err := Authorities.List(r, DomainPrefix(td))
	if err != nil {
		return nil, fmt.Errorf("list the authorities of %s: %w", td, err)
	}
	values := make([]*statev1.Authority, len(rows))
	for i, row := range rows {
		values[i] = row.Value
	}
	return values, nil
}

// RotationsOf returns the requests to rotate the authorities of a domain.
func RotationsOf(r raftstore.Reader, td string) (plan.Rotations, error) {
	row, ok, err := Rotations.Get(r, td)
	if err != nil || !ok {
		return plan.Rotations{}, err
	}
	return plan.Rotations{
		Last: row.Value.GetRotation(), Anchors: row.Value.GetAnchorRotation(), Reserve: row.Value.GetReserve(),
	}, nil
}

// AnchorOf returns the anchor to which the chain of an X.509 authority leads.
func AnchorOf(row *statev1.Authority) (*x509.Certificate, error) {
	if len(row.GetAnchors()) == 0 {
		return nil, fmt.Errorf("authority %s of %s has no anchor", row.GetId(), row.GetTrustDomain())
	}
	anchor, err := x509.ParseCertificate(row.GetAnchors()[0])
	if err != nil {
		return nil, fmt.Errorf("the anchor of authority %s of %s: %w", row.GetId(), row.GetTrustDomain(), err)
	}
	return anchor, nil
}

// VerificationKey returns the public key of a JWT authority.
func VerificationKey(row *statev1.Authority) (*ecdsa.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(row.GetJwtKey())
	if err != nil {
		return nil, fmt.Errorf("the key of JWT authority %s of %s: %w", row.GetId(), row.GetTrustDomain(), err)
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the key of JWT authority %s of %s is not an ECDSA key", row.GetId(),
			row.GetTrustDomain())
	}
	return public, nil
}

// SameAnchor reports whether two authorities are below the same anchor.
func SameAnchor(a, b *statev1.Authority) bool {
	return len(a.GetAnchors()) > 0 && len(b.GetAnchors()) > 0 && bytes.Equal(a.GetAnchors()[0], b.GetAnchors()[0])
}

// newestOwn returns the newest authority of the kind that the member has, or nil.
func newestOwn(rows []*statev1.Authority, member string, kind plan.Kind) *statev1.Authority {
	var newest *statev1.Authority
	for _, row := range rows {
		if row.GetMember() == member && plan.Kind(row.GetKind()) == kind &&
			(newest == nil || row.GetNumber() > newest.GetNumber()) {
			newest = row
		}
	}
	return newest
}

func cloneAuthority(row *statev1.Authority) *statev1.Authority {
	return proto.Clone(row).(*statev1.Authority)
}
