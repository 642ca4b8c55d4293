package table

import (
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
)

// The tables of this room. Keys of rows that belong to a domain begin with [DomainPrefix].
var (
	// Domains are the hosted trust domains, by name.
	Domains = raftstore.NewTable[*statev1.Domain]("domains", raftstore.RecordsNow)
	// HostedBundles are the bundles of hosted trust domains, by name. A domain that never had an authority has none.
	HostedBundles = raftstore.NewTable[*statev1.Bundle]("hosted_bundles", raftstore.RecordsNow)
	// Authorities are the authorities of hosted domains, of every member, by [AuthorityKey].
	Authorities = raftstore.NewTable[*statev1.Authority]("authorities", raftstore.RecordsNow)
	// Rotations count the requests to rotate, by domain.
	Rotations = raftstore.NewTable[*statev1.Rotation]("rotations")
	// RevokedAnchors are the records of revoked anchors, by [AnchorKey].
	RevokedAnchors = raftstore.NewTable[*statev1.RevokedAnchor]("revoked_anchors", raftstore.RecordsNow)
	// Distrusted are the records of tainted and revoked authorities, by [AuthorityKey].
	Distrusted = raftstore.NewTable[*statev1.Distrusted]("distrusted_authorities", raftstore.RecordsNow)
	// PastSequences are the last sequences of domains that are no longer hosted, by domain.
	PastSequences = raftstore.NewTable[*statev1.PastSequence]("past_sequences", raftstore.RecordsNow)
	// HostedHistory are the last [statement.HostedDepth] versions of hosted bundles, by domain and number of the
	// version, and HostedHistoryKeys the authorities in them.
	HostedHistory     = raftstore.NewTable[*statev1.BundleVersion]("hosted_history", raftstore.RecordsNow)
	HostedHistoryKeys = raftstore.NewTable[*statev1.BundleKey]("hosted_history_keys")
)

// Hosts reports whether the cluster is the authority for the trust domain. Inside a transaction, the result holds when
// the transaction commits.
func Hosts(r raftstore.Reader, td string) (bool, error) {
	_, ok, err := Domains.Get(r, td)
	return ok, err
}

// AuthorityKey returns the key of an authority.
func AuthorityKey(td, id string) string { return td + "/" + id }

// DomainPrefix returns the prefix of the keys that belong to a domain. The name of a trust domain contains no slash.
func DomainPrefix(td string) string { return td + "/" }

// SettingsOf returns the settings of a domain.
func SettingsOf(d *statev1.Domain) plan.Settings {
	return plan.Settings{
		RefreshHint:      d.GetRefreshHint().AsDuration(),
		PeerMinRefresh:   d.GetPeerMinRefresh().AsDuration(),
		X509SVIDTTL:      d.GetX509SvidTtl().AsDuration(),
		JWTSVIDTTL:       d.GetJwtSvidTtl().AsDuration(),
		CATTL:            d.GetCaTtl().AsDuration(),
		EarlierHint:      d.GetEarlierHint().AsDuration(),
		EarlierHintUntil: TimeOf(d.GetEarlierHintUntil()),
	}
}

// SetSettings writes the settings of a domain to its row.
func SetSettings(d *statev1.Domain, s plan.Settings) {
	d.RefreshHint = durationpb.New(s.RefreshHint)
	d.PeerMinRefresh = durationpb.New(s.PeerMinRefresh)
	d.X509SvidTtl = durationpb.New(s.X509SVIDTTL)
	d.JwtSvidTtl = durationpb.New(s.JWTSVIDTTL)
	d.CaTtl = durationpb.New(s.CATTL)
	d.EarlierHint, d.EarlierHintUntil = nil, nil
	if s.EarlierHint > 0 {
		d.EarlierHint, d.EarlierHintUntil = durationpb.New(s.EarlierHint), timestamppb.New(s.EarlierHintUntil)
	}
}
