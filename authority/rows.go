package authority

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
	"github.com/ententehq/entente/raftstore"
)

var (
	// Domains are the hosted trust domains, by name.
	Domains = raftstore.NewTable[*statev1.Domain]("domains")
	// HostedBundles are the bundles of hosted trust domains, by name. A domain that never had an authority has none.
	HostedBundles = raftstore.NewTable[*statev1.Bundle]("hosted_bundles")

	authorities    = raftstore.NewTable[*statev1.Authority]("authorities")
	rotations      = raftstore.NewTable[*statev1.Rotation]("rotations")
	revokedAnchors = raftstore.NewTable[*statev1.RevokedAnchor]("revoked_anchors")
	distrusted     = raftstore.NewTable[*statev1.Distrusted]("distrusted_authorities")
	pastSequences  = raftstore.NewTable[*statev1.PastSequence]("past_sequences")
)

// Hosts says whether the cluster is the authority for the trust domain. Inside a transaction the answer holds when the
// transaction does.
func Hosts(r raftstore.Reader, td string) (bool, error) {
	_, ok, err := Domains.Get(r, td)
	return ok, err
}

func authorityKey(td, id string) string { return td + "/" + id }

// below is the prefix of the keys of a domain's authorities. A trust domain's name holds no slash.
func below(td string) string { return td + "/" }

func settingsOf(d *statev1.Domain) Settings {
	return Settings{
		RefreshHint:      d.GetRefreshHint().AsDuration(),
		X509SVIDTTL:      d.GetX509SvidTtl().AsDuration(),
		JWTSVIDTTL:       d.GetJwtSvidTtl().AsDuration(),
		CATTL:            d.GetCaTtl().AsDuration(),
		EarlierHint:      d.GetEarlierHint().AsDuration(),
		EarlierHintUntil: timeOf(d.GetEarlierHintUntil()),
	}
}

func setSettings(d *statev1.Domain, s Settings) {
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
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return never
	}
	return t.AsTime()
}

func authorityOf(row *statev1.Authority) Authority {
	anchor := ""
	if len(row.GetAnchors()) > 0 {
		anchor = string(row.GetAnchors()[0])
	}
	return Authority{
		Anchor:         anchor,
		UpstreamAnchor: row.GetUpstreamAnchor(),
		AnchorRevoked:  row.GetAnchorRevoked(),
		Held:           row.GetHeld(),
		Reserve:        row.GetReserve(),
		ID:             row.GetId(),
		Member:         row.GetMember(),
		Kind:           Kind(row.GetKind()),
		State:          State(row.GetState()),
		Number:         row.GetNumber(),
		NotBefore:      timeOf(row.GetNotBefore()),
		NotAfter:       timeOf(row.GetNotAfter()),
		Ready:          timeOf(row.GetReadyTime()),
		Published:      row.GetPublishSequence(),
		PublishedAt:    timeOf(row.GetPrepareTime()),
		Retired:        timeOf(row.GetRetireTime()),
		LongestSVID:    row.GetLongestSvid().AsDuration(),
		Rotation:       row.GetRotation(),
		AnchorRotation: row.GetAnchorRotation(),
	}
}

// The numbers of the kinds and states are those that are stored.
var (
	_ = [1]struct{}{}[int(X509)-int(statev1.AuthorityKind_AUTHORITY_KIND_X509)]
	_ = [1]struct{}{}[int(JWT)-int(statev1.AuthorityKind_AUTHORITY_KIND_JWT)]
	_ = [1]struct{}{}[int(Prepared)-int(statev1.AuthorityState_AUTHORITY_STATE_PREPARED)]
	_ = [1]struct{}{}[int(Active)-int(statev1.AuthorityState_AUTHORITY_STATE_ACTIVE)]
	_ = [1]struct{}{}[int(Retiring)-int(statev1.AuthorityState_AUTHORITY_STATE_RETIRING)]
	_ = [1]struct{}{}[int(Tainted)-int(statev1.AuthorityState_AUTHORITY_STATE_TAINTED)]
	_ = [1]struct{}{}[int(Revoked)-int(statev1.AuthorityState_AUTHORITY_STATE_REVOKED)]
)

// listAuthorities returns the rows of a domain's authorities, of every member.
func listAuthorities(r raftstore.Reader, td string) ([]*statev1.Authority, error) {
	rows, err := authorities.List(r, below(td))
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
func rotationsOf(r raftstore.Reader, td string) (Rotations, error) {
	row, ok, err := rotations.Get(r, td)
	if err != nil || !ok {
		return Rotations{}, err
	}
	return Rotations{Last: row.Value.GetRotation(), Anchors: row.Value.GetAnchorRotation(), Reserve: row.Value.GetReserve()}, nil
}

// anchorOf returns the anchor that an X.509 authority's chain leads to.
func anchorOf(row *statev1.Authority) (*x509.Certificate, error) {
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
func verificationKey(row *statev1.Authority) (*ecdsa.PublicKey, error) {
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
func sameAnchor(a, b *statev1.Authority) bool {
	return len(a.GetAnchors()) > 0 && len(b.GetAnchors()) > 0 && bytes.Equal(a.GetAnchors()[0], b.GetAnchors()[0])
}

// newestOwn returns the member's newest authority of the kind, if it has any.
func newestOwn(rows []*statev1.Authority, member string, kind Kind) *statev1.Authority {
	var newest *statev1.Authority
	for _, row := range rows {
		if row.GetMember() == member && Kind(row.GetKind()) == kind && (newest == nil || cmp.Compare(row.GetNumber(), newest.GetNumber()) > 0) {
			newest = row
		}
	}
	return newest
}

func cloneAuthority(row *statev1.Authority) *statev1.Authority {
	return proto.Clone(row).(*statev1.Authority)
}
