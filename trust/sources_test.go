package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

// The tables of the rooms above, as far as trust reads them.
var (
	domains       = raftstore.NewTable[*statev1.Domain]("test_domains")
	hosted        = raftstore.NewTable[*statev1.Bundle]("test_hosted")
	history       = raftstore.NewTable[*statev1.BundleVersion]("test_history")
	relationships = raftstore.NewTable[*statev1.Relationship]("test_relationships")
	foreign       = raftstore.NewTable[*statev1.Bundle]("test_foreign")
	attestations  = raftstore.NewTable[*statev1.HubBundle]("test_attestations")
)

// sources have simple rules: a relationship is fresh or suspended, the first hub counts, and a relationship with vouch
// is in the map. A relationship for one kind of authorities uses none of a bundle.
func sources() trust.Sources {
	return trust.Sources{
		Hosted: trust.Hosted{
			Hosts: func(r raftstore.Reader, td string) (bool, error) {
				_, found := domains.RevisionOf(r, td)
				return found, nil
			},
			Domains: domains, Bundles: hosted, History: history,
		},
		Foreign: trust.Foreign{
			Relationships: relationships, Bundles: foreign, Attestations: attestations,
			Status: func(r *statev1.Relationship) standing.Status {
				if r.GetSuspended() {
					return standing.StatusOf(standing.Suspended)
				}
				return standing.StatusOf(standing.FromFreshness(ententev1.Freshness(r.GetValidity().GetFreshness())))
			},
			Attest: func(r raftstore.Reader, td string) (trust.Attestation, bool, error) {
				for row, err := range attestations.All(r, td+"/") {
					return trust.Attestation{
						Hub:    row.Value.GetHub(),
						Row:    row,
						Status: standing.StatusOf(standing.Stale),
					}, true, err
				}
				return trust.Attestation{}, false, nil
			},
			Usable: func(r *statev1.Relationship, b *bundle.Bundle) (*bundle.Bundle, error) {
				if len(r.GetAuthorityKinds()) == 0 {
					return b, nil
				}
				return b.With(func(c *bundle.Content) { c.X509Authorities = nil })
			},
			Attested: func(r *statev1.Relationship) bool { return r.GetAttest() },
		},
	}
}

func bundleOf(t *testing.T, name string, sequence uint64) *bundle.Bundle {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{{Scheme: "spiffe", Host: name}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	root, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	b, err := bundle.New(spiffeid.RequireTrustDomainFromString(name),
		bundle.Content{X509Authorities: []*x509.Certificate{root}, Sequence: &sequence})
	require.NoError(t, err)
	return b
}

// world is a store in which each domain is named for what could make it trusted.
func world(t *testing.T) *raftstore.Store {
	t.Helper()
	store := raftstoretest.New(t)
	update(t, store, func(tx *raftstore.Tx) error {
		for i, name := range []string{"hosted.test", "hosted-and-attested.test"} {
			if err := domains.Put(tx, name, &statev1.Domain{TrustDomain: name}); err != nil {
				return err
			}
			if err := hosted.Put(tx, name, bundleOf(t, name, uint64(i+1)).Row(time.Now())); err != nil {
				return err
			}
		}
		for _, name := range []string{"foreign.test", "foreign-and-attested.test", "pending.test", "suspended.test"} {
			row := &statev1.Relationship{TrustDomain: name, Suspended: name == "suspended.test"}
			if name != "pending.test" {
				row.Validity = &statev1.RelationshipValidity{Freshness: int32(ententev1.Freshness_FRESHNESS_FRESH)}
				if err := foreign.Put(tx, name, bundleOf(t, name, 3).Row(time.Now())); err != nil {
					return err
				}
			}
			if err := relationships.Put(tx, name, row); err != nil {
				return err
			}
		}
		for key, hub := range map[string]string{
			"attested.test/a.test": "a.test", "attested.test/b.test": "b.test",
			"foreign-and-attested.test/a.test": "a.test",
			"hosted-and-attested.test/a.test":  "a.test", "pending.test/a.test": "a.test",
		} {
			td := trust.DomainOf(key)
			row := &statev1.HubBundle{TrustDomain: td, Hub: hub, Document: bundleOf(t, td, 9).Marshal()}
			if err := attestations.Put(tx, key, row); err != nil {
				return err
			}
		}
		return nil
	})
	return store
}

func update(t *testing.T, store *raftstore.Store, fn func(tx *raftstore.Tx) error) {
	t.Helper()
	_, err := store.Update(t.Context(), fn)
	require.NoError(t, err)
}

// TestDecide: hosting counts before a relationship, and that before a hub's attestation, even without a bundle.
func TestDecide(t *testing.T) {
	view, s := world(t).View(), sources()
	for name, want := range map[string]struct {
		origin   trust.Origin
		state    standing.State
		sequence uint64       // of the stored bundle; 0: none is stored
		without  trust.Origin // of a domain without its relationship
	}{
		"hosted.test":               {trust.ByHosting, standing.Fresh, 1, trust.ByHosting},
		"hosted-and-attested.test":  {trust.ByHosting, standing.Fresh, 2, trust.ByHosting},
		"foreign.test":              {trust.ByRelationship, standing.Fresh, 3, trust.None},
		"foreign-and-attested.test": {trust.ByRelationship, standing.Fresh, 3, trust.ByAttestation},
		"suspended.test":            {trust.ByRelationship, standing.Suspended, 3, trust.None},
		"pending.test":              {trust.ByRelationship, standing.Pending, 0, trust.ByAttestation},
		"attested.test":             {trust.ByAttestation, standing.Stale, 9, trust.ByAttestation},
		"other.test":                {trust.None, standing.Unknown, 0, trust.None},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := s.Decide(view, name)
			require.NoError(t, err)
			require.Equal(t, want.origin, d.Origin)
			require.Equal(t, standing.StatusOf(want.state), d.Status)
			without, err := s.DecideWithoutRelationship(view, name)
			require.NoError(t, err)
			require.Equal(t, want.without, without.Origin)
			attestable, err := s.Attestable(view, name)
			require.NoError(t, err)
			require.Equal(t, want.origin != trust.ByHosting, attestable)
			row, found, err := s.Stored(view, name, d)
			require.NoError(t, err)
			require.Equal(t, want.sequence != 0, found)
			if !found {
				return
			}
			require.Equal(t, name, row.Value.GetTrustDomain())
			b, err := trust.Parse(row.Value)
			require.NoError(t, err)
			sequence, _ := b.Sequence()
			require.Equal(t, want.sequence, sequence)
		})
	}
}

func TestAll(t *testing.T) {
	var names []string
	for d, err := range sources().All(world(t).View()) {
		require.NoError(t, err)
		names = append(names, d.Name)
	}
	require.Equal(t, []string{
		"hosted-and-attested.test", "hosted.test", "foreign-and-attested.test", "foreign.test", "suspended.test",
		"attested.test",
	}, names)
}

// TestHostedNames: the hosted domains, whatever else attests to them.
func TestHostedNames(t *testing.T) {
	require.Equal(t, []string{"hosted-and-attested.test", "hosted.test"}, sources().HostedNames(world(t).View()))
}

func TestAttestedBy(t *testing.T) {
	view := world(t).View()
	require.Equal(t, []string{"attested.test"}, sources().AttestedBy(view, "b.test"))
	require.Equal(t, []string{"attested.test", "foreign-and-attested.test", "hosted-and-attested.test", "pending.test"},
		sources().AttestedBy(view, "a.test"))
	require.Empty(t, sources().AttestedBy(view, "c.test"))
}

func TestSentenceNamesWhoSuspended(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("us.example.org")
	d := trust.Decision{Status: standing.StatusOf(standing.Suspended), Origin: trust.ByRelationship}
	require.Equal(t, standing.Suspended.Sentence(td), d.Sentence(td), "a row of an earlier version")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d.Relationship.Value = &statev1.Relationship{Suspended: true, Suspension: &statev1.RelationshipSuspension{
		Time: timestamppb.New(at), By: "spiffe://eu.example.org/ops",
	}}
	require.Equal(t, "the relationship with us.example.org is suspended, since 2026-01-02T03:04:05Z by "+
		"spiffe://eu.example.org/ops; resume it with 'entente federation resume us.example.org'", d.Sentence(td))
	d.Status = standing.StatusOf(standing.Stale)
	require.Equal(t, standing.Stale.Sentence(td), d.Sentence(td))
}
