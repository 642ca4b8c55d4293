package table

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
)

var (
	// Domains are the hosted trust domains, by name.
	Domains = raftstore.NewTable[*statev1.Domain]("domains")
	// HostedBundles are the bundles of hosted trust domains, by name. A domain that never had an authority has none.
	HostedBundles = raftstore.NewTable[*statev1.Bundle]("hosted_bundles")

	Authorities    = raftstore.NewTable[*statev1.Authority]("authorities")
	Rotations      = raftstore.NewTable[*statev1.Rotation]("rotations")
	RevokedAnchors = raftstore.NewTable[*statev1.RevokedAnchor]("revoked_anchors")
	Distrusted     = raftstore.NewTable[*statev1.Distrusted]("distrusted_authorities")
	PastSequences  = raftstore.NewTable[*statev1.PastSequence]("past_sequences")
)

// Hosts says whether the cluster is the authority for the trust domain. Inside a transaction the answer holds when the
// transaction does.
func Hosts(r raftstore.Reader, td string) (bool, error) {
	_, ok, err := Domains.Get(r, td)
	return ok, err
}

func AuthorityKey(td, id string) string { return td + "/" + id }

// below is the prefix of the keys of a domain's authorities. A trust domain's name holds no slash.
func DomainPrefix(td string) string { return td + "/" }

func SettingsOf(d *statev1.Domain) plan.Settings {
	return plan.Settings{
		RefreshHint:      d.GetRefreshHint().AsDuration(),
		X509SVIDTTL:      d.GetX509SvidTtl().AsDuration(),
		JWTSVIDTTL:       d.GetJwtSvidTtl().AsDuration(),
		CATTL:            d.GetCaTtl().AsDuration(),
		EarlierHint:      d.GetEarlierHint().AsDuration(),
		EarlierHintUntil: TimeOf(d.GetEarlierHintUntil()),
	}
}

func SetSettings(d *statev1.Domain, s plan.Settings) {
	d.RefreshHint = durationpb.New(s.RefreshHint)
	d.X509SvidTtl = durationpb.New(s.X509SVIDTTL)
	d.JwtSvidTtl = durationpb.New(s.JWTSVIDTTL)
	d.CaTtl = durationpb.New(s.CATTL)
	d.EarlierHint, d.EarlierHintUntil = nil, nil
	if s.EarlierHint > 0 {
		d.EarlierHint, d.EarlierHintUntil = durationpb.New(s.EarlierHint), timestamppb.New(s.EarlierHintUntil)
	}
}

// timeOf reads a stored moment; absent is never.
func TimeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return plan.Never
	}
	return t.AsTime()
}

func AuthorityOf(row *statev1.Authority) plan.Authority {
	anchor := ""
	if len(row.GetAnchors()) > 0 {
		anchor = string(row.GetAnchors()[0])
	}
	return plan.Authority{
		Anchor:         anchor,
		UpstreamAnchor: row.GetUpstreamAnchor(),
		AnchorRevoked:  row.GetAnchorRevoked(),
		Held:           row.GetHeld(),
		Reserve:        row.GetReserve(),
		ID:             row.GetId(),
		Member:         row.GetMember(),
		Kind:           plan.Kind(row.GetKind()),
		State:          plan.State(row.GetState()),
		Number:         row.GetNumber(),
		NotBefore:      TimeOf(row.GetNotBefore()),
		NotAfter:       TimeOf(row.GetNotAfter()),
		Ready:          TimeOf(row.GetReadyTime()),
		Published:      row.GetPublishSequence(),
		PublishedAt:    TimeOf(row.GetPrepareTime()),
		Retired:        TimeOf(row.GetRetireTime()),
		LongestSVID:    row.GetLongestSvid().AsDuration(),
		Rotation:       row.GetRotation(),
		AnchorRotation: row.GetAnchorRotation(),
	}
}

// The numbers of the kinds and states are those that are stored.
var (
	_ = [1]struct{}{}[int(plan.X509)-int(statev1.AuthorityKind_AUTHORITY_KIND_X509)]
	_ = [1]struct{}{}[int(plan.JWT)-int(statev1.AuthorityKind_AUTHORITY_KIND_JWT)]
	_ = [1]struct{}{}[int(plan.Prepared)-int(statev1.AuthorityState_AUTHORITY_STATE_PREPARED)]
	_ = [1]struct{}{}[int(plan.Active)-int(statev1.AuthorityState_AUTHORITY_STATE_ACTIVE)]
	_ = [1]struct{}{}[int(plan.Retiring)-int(statev1.AuthorityState_AUTHORITY_STATE_RETIRING)]
	_ = [1]struct{}{}[int(plan.Tainted)-int(statev1.AuthorityState_AUTHORITY_STATE_TAINTED)]
	_ = [1]struct{}{}[int(plan.Revoked)-int(statev1.AuthorityState_AUTHORITY_STATE_REVOKED)]
)

// listAuthorities returns the rows of a domain's authorities, of every member.
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

// rotationsOf returns how often a rotation of the domain was asked for.
func RotationsOf(r raftstore.Reader, td string) (plan.Rotations, error) {
	row, ok, err := Rotations.Get(r, td)
	if err != nil || !ok {
		return plan.Rotations{}, err
	}
	return plan.Rotations{Last: row.Value.GetRotation(), Anchors: row.Value.GetAnchorRotation(), Reserve: row.Value.GetReserve()}, nil
}

// anchorOf returns the anchor that an X.509 authority's chain leads to.
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

// verificationKey returns the public key of a JWT authority.
func VerificationKey(row *statev1.Authority) (*ecdsa.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(row.GetJwtKey())
	if err != nil {
		return nil, fmt.Errorf("the key of JWT authority %s of %s: %w", row.GetId(), row.GetTrustDomain(), err)
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the key of JWT authority %s of %s: %w", row.GetId(), row.GetTrustDomain(), errors.New("it is not an ECDSA key"))
	}
	return public, nil
}

// sameAnchor says whether two authorities are below the same anchor.
func SameAnchor(a, b *statev1.Authority) bool {
	return len(a.GetAnchors()) > 0 && len(b.GetAnchors()) > 0 && bytes.Equal(a.GetAnchors()[0], b.GetAnchors()[0])
}

// newestOwn returns the member's newest authority of the kind, if it has any.
func newestOwn(rows []*statev1.Authority, member string, kind plan.Kind) *statev1.Authority {
	var newest *statev1.Authority
	for _, row := range rows {
		if row.GetMember() == member && plan.Kind(row.GetKind()) == kind && (newest == nil || cmp.Compare(row.GetNumber(), newest.GetNumber()) > 0) {
			newest = row
		}
	}
	return newest
}

func cloneAuthority(row *statev1.Authority) *statev1.Authority {
	return proto.Clone(row).(*statev1.Authority)
}
