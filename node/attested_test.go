package node

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/trust"
)

// The index with its caches returns what an index without them returns, after each kind of change.
func TestAttestedBundlesFollowTheTables(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	store := raftstoretest.New(t)
	stored := func(name string, sequence uint64) *statev1.Bundle {
		b, err := bundle.New(spiffeid.RequireTrustDomainFromString(name),
			bundle.Content{JWTAuthorities: map[string]crypto.PublicKey{"kid1": key.Public()}, Sequence: &sequence})
		require.NoError(t, err)
		return b.Row(time.Now())
	}
	rel := func(name string, attest, suspended bool) *statev1.Relationship {
		return &statev1.Relationship{TrustDomain: name, Attest: attest, Suspended: suspended,
			Validity: &statev1.RelationshipValidity{Freshness: int32(ententev1.Freshness_FRESHNESS_FRESH)}}
	}
	index := trust.NewIndex(trustSources())
	for _, step := range []struct {
		name   string
		change func(tx *raftstore.Tx) error
		want   []string
	}{
		{"nothing is there", func(*raftstore.Tx) error { return nil }, nil},
		{"relationships without bundles", func(tx *raftstore.Tx) error {
			all := map[string]bool{"a.example.org": true, "b.example.org": true, "c.example.org": false}
			for name, attest := range all {
				if err := relationship.Relationships.Put(tx, name, rel(name, attest, false)); err != nil {
					return err
				}
			}
			return nil
		}, nil},
		{"bundles", func(tx *raftstore.Tx) error {
			for _, name := range []string{"b.example.org", "a.example.org", "c.example.org"} {
				if err := relationship.ForeignBundles.Put(tx, name, stored(name, 1)); err != nil {
					return err
				}
			}
			return nil
		}, []string{"a.example.org", "b.example.org"}},
		{"another version", func(tx *raftstore.Tx) error {
			return relationship.ForeignBundles.Put(tx, "a.example.org", stored("a.example.org", 2))
		}, []string{"a.example.org", "b.example.org"}},
		{"one more is attested", func(tx *raftstore.Tx) error {
			return relationship.Relationships.Put(tx, "c.example.org", rel("c.example.org", true, false))
		}, []string{"a.example.org", "b.example.org", "c.example.org"}},
		{"one is suspended", func(tx *raftstore.Tx) error {
			return relationship.Relationships.Put(tx, "b.example.org", rel("b.example.org", true, true))
		}, []string{"a.example.org", "c.example.org"}},
		{"one is hosted", func(tx *raftstore.Tx) error {
			return table.Domains.Put(tx, "c.example.org", &statev1.Domain{TrustDomain: "c.example.org"})
		}, []string{"a.example.org"}},
		{"a bundle goes", func(tx *raftstore.Tx) error {
			return relationship.ForeignBundles.Delete(tx,
				"a.example.org")
		}, nil},
		{"it comes back, and the host goes", func(tx *raftstore.Tx) error {
			if err := relationship.ForeignBundles.Put(tx, "a.example.org", stored("a.example.org", 2)); err != nil {
				return err
			}
			return table.Domains.Delete(tx, "c.example.org")
		}, []string{"a.example.org", "c.example.org"}},
		{"a relationship goes", func(tx *raftstore.Tx) error {
			return relationship.Relationships.Delete(tx,
				"a.example.org")
		}, []string{"c.example.org"}},
	} {
		_, err := store.Update(t.Context(), step.change)
		require.NoError(t, err, step.name)
		all, err := index.AttestedEntries(store.View())
		require.NoError(t, err, step.name)
		fresh, err := trust.NewIndex(trustSources()).AttestedEntries(store.View())
		require.NoError(t, err, step.name)
		require.Equal(t, fresh, all, step.name)
		var names []string
		for _, one := range all {
			names = append(names, one.TrustDomain.Name())
		}
		require.Equal(t, step.want, names, step.name)
	}
}
