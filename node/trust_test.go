package node

import (
	"context"
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
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/bundleapi"
	"github.com/ententehq/entente/trust/standing"
)

func testBundle(t *testing.T, name string) *bundle.Bundle {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: name}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	root, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	b, err := bundle.New(spiffeid.RequireTrustDomainFromString(name),
		bundle.Content{X509Authorities: []*x509.Certificate{root}})
	require.NoError(t, err)
	return b
}

func validity(f ententev1.Freshness) *statev1.RelationshipValidity {
	return &statev1.RelationshipValidity{Freshness: int32(f)}
}

// world returns a store with one hosted domain, and a foreign domain in each state.
func world(t *testing.T) *raftstore.Store {
	t.Helper()
	store := raftstoretest.New(t)
	_, err := store.Update(t.Context(), func(tx *raftstore.Tx) error {
		if err := table.Domains.Put(tx, "eu.example.org", &statev1.Domain{TrustDomain: "eu.example.org"}); err != nil {
			return err
		}
		own := testBundle(t, "eu.example.org").Row(time.Now())
		if err := table.HostedBundles.Put(tx, "eu.example.org", own); err != nil {
			return err
		}
		x509Expired := validity(ententev1.Freshness_FRESHNESS_FRESH)
		x509Expired.X509Expired = true
		for name, row := range map[string]*statev1.Relationship{
			"fresh.example.org":     {Validity: validity(ententev1.Freshness_FRESHNESS_FRESH)},
			"stale.example.org":     {Validity: validity(ententev1.Freshness_FRESHNESS_STALE)},
			"expired.example.org":   {Validity: validity(ententev1.Freshness_FRESHNESS_EXPIRED)},
			"jwtonly.example.org":   {Validity: x509Expired},
			"suspended.example.org": {Suspended: true, Validity: validity(ententev1.Freshness_FRESHNESS_FRESH)},
			"pending.example.org":   {},
		} {
			row.TrustDomain = name
			if err := relationship.Relationships.Put(tx, name, row); err != nil {
				return err
			}
			if name == "pending.example.org" {
				continue
			}
			if err := relationship.ForeignBundles.Put(tx, name, testBundle(t, name).Row(time.Now())); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	return store
}

func TestCallersAndRoutesFollowTheSameRules(t *testing.T) {
	store := world(t)
	trusted := trust.NewIndex(trustSources())
	trusted.Open(store)
	for name, c := range map[string]struct {
		state  standing.State
		refuse string // why callers are not trusted; empty: they are
	}{
		"eu.example.org":    {standing.Fresh, ""},
		"fresh.example.org": {standing.Fresh, ""},
		"stale.example.org": {standing.Stale, ""},
		"expired.example.org": {standing.Expired, "the bundle of expired.example.org has expired; see 'entente " +
			"federation show expired.example.org'"},
		"jwtonly.example.org": {standing.Expired, "the bundle of jwtonly.example.org has expired; see 'entente " +
			"federation show jwtonly.example.org'"},
		"suspended.example.org": {standing.Suspended,
			"the relationship with suspended.example.org is suspended; resume it with 'entente federation resume " +
				"suspended.example.org'"},
		"pending.example.org": {standing.Pending, "no bundle of pending.example.org has been received yet; see " +
			"'entente federation show pending.example.org'"},
		"other.example.org": {standing.Unknown, "other.example.org is neither hosted here nor federated with; " +
			"'entente federation create other.example.org' creates a relationship"},
	} {
		t.Run(name, func(t *testing.T) {
			td := spiffeid.RequireTrustDomainFromString(name)
			state, err := trusted.State(store.View(), td)
			require.NoError(t, err)
			require.Equal(t, c.state, state)
			authorities, err := trusted.GetX509BundleForTrustDomain(td)
			if c.refuse != "" {
				require.EqualError(t, err, c.refuse)
				return
			}
			require.NoError(t, err)
			require.Len(t, authorities.X509Authorities(), 1)
			require.Equal(t, name, authorities.X509Authorities()[0].URIs[0].Host)
		})
	}
}

func TestChangedBundleIsParsedAgain(t *testing.T) {
	store := world(t)
	trusted := trust.NewIndex(trustSources())
	trusted.Open(store)
	td := spiffeid.RequireTrustDomainFromString("fresh.example.org")
	before, err := trusted.GetX509BundleForTrustDomain(td)
	require.NoError(t, err)
	_, err = store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return relationship.ForeignBundles.Put(tx, td.Name(), testBundle(t, td.Name()).Row(time.Now()))
	})
	require.NoError(t, err)
	after, err := trusted.GetX509BundleForTrustDomain(td)
	require.NoError(t, err)
	require.False(t, before.Equal(after))
}

func newCatalog(store *raftstore.Store, home spiffeid.TrustDomain) *bundleapi.Indexed {
	return &bundleapi.Indexed{Store: store, Index: trust.NewIndex(trustSources()), Domain: home,
		Versions: bundleHistory}
}

func TestCatalogReturnsTrustedBundles(t *testing.T) {
	store := world(t)
	home := spiffeid.RequireTrustDomainFromString("eu.example.org")
	c := newCatalog(store, home)
	list, err := c.List(t.Context(), bundleapi.ReadOptions{Linearizable: true})
	require.NoError(t, err)
	freshness := map[string]ententev1.Freshness{}
	for _, b := range list.Bundles {
		freshness[b.GetTrustDomain()] = b.GetFreshness()
		require.Equal(t, b.GetTrustDomain() == home.Name(), b.GetHosted())
	}
	require.Equal(t, map[string]ententev1.Freshness{
		"eu.example.org":      ententev1.Freshness_FRESHNESS_FRESH,
		"fresh.example.org":   ententev1.Freshness_FRESHNESS_FRESH,
		"stale.example.org":   ententev1.Freshness_FRESHNESS_STALE,
		"expired.example.org": ententev1.Freshness_FRESHNESS_EXPIRED,
		"jwtonly.example.org": ententev1.Freshness_FRESHNESS_FRESH,
	}, freshness)
	for _, name := range []string{"suspended.example.org", "pending.example.org", "other.example.org"} {
		_, err := c.Get(t.Context(), spiffeid.RequireTrustDomainFromString(name), bundleapi.ReadOptions{})
		require.ErrorIs(t, err, bundleapi.ErrNotFound, name)
	}
}

// Without the consent of both sides, neither the bundle of a domain nor its history is returned.
func TestCatalogReturnsNoHistoryBeforeConsent(t *testing.T) {
	store := world(t)
	now := timestamppb.Now()
	for name, c := range map[string]struct {
		a     *statev1.RelationshipAgreement
		shown bool
	}{
		"made by hand":    {nil, true},
		"no consent":      {&statev1.RelationshipAgreement{}, false},
		"only its own":    {&statev1.RelationshipAgreement{ApproveTime: now}, false},
		"only the peer's": {&statev1.RelationshipAgreement{PeerApproveTime: now}, false},
		"both":            {&statev1.RelationshipAgreement{ApproveTime: now, PeerApproveTime: now}, true},
		"both, and ended": {&statev1.RelationshipAgreement{ApproveTime: now, PeerApproveTime: now, EndTime: now},
			true},
		"refused and ended": {&statev1.RelationshipAgreement{PeerApproveTime: now, EndTime: now}, false},
	} {
		_, err := store.Update(t.Context(), func(tx *raftstore.Tx) error {
			row, _, err := relationship.Relationships.Get(tx, "fresh.example.org")
			if err != nil {
				return err
			}
			row.Value.Agreement = c.a
			return relationship.Relationships.Put(tx, row.Key, row.Value)
		})
		require.NoError(t, err)
		catalog := newCatalog(store, spiffeid.RequireTrustDomainFromString("eu.example.org"))
		_, err = catalog.History(t.Context(), spiffeid.RequireTrustDomainFromString("fresh.example.org"),
			bundleapi.ReadOptions{})
		if c.shown {
			require.NoError(t, err, name)
		} else {
			require.ErrorIs(t, err, bundleapi.ErrNotFound, name)
		}
	}
}

func TestFollowersReceiveChangesAndDeletions(t *testing.T) {
	store := world(t)
	c := newCatalog(store, spiffeid.RequireTrustDomainFromString("eu.example.org"))
	ctx, cancel := context.WithCancel(t.Context())
	states := make(chan map[string]uint64)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Follow(ctx, func(s bundleapi.State) error {
			have := map[string]uint64{}
			for _, b := range s.Bundles {
				have[b.GetTrustDomain()] = b.GetRevision()
			}
			select {
			case states <- have:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}()
	first := <-states
	require.Len(t, first, 5)
	change := func(fn func(tx *raftstore.Tx) error) map[string]uint64 {
		t.Helper()
		_, err := store.Update(t.Context(), fn)
		require.NoError(t, err)
		return <-states
	}
	next := change(func(tx *raftstore.Tx) error {
		return relationship.ForeignBundles.Put(tx, "fresh.example.org",
			testBundle(t, "fresh.example.org").Row(time.Now()))
	})
	require.Greater(t, next["fresh.example.org"], first["fresh.example.org"])
	require.Equal(t, first["stale.example.org"], next["stale.example.org"])
	next = change(func(tx *raftstore.Tx) error {
		return relationship.Relationships.Put(tx, "stale.example.org",
			&statev1.Relationship{TrustDomain: "stale.example.org", Suspended: true})
	})
	require.NotContains(t, next, "stale.example.org", "a suspended bundle is not handed out")
	next = change(func(tx *raftstore.Tx) error {
		if err := relationship.Relationships.Delete(tx, "fresh.example.org"); err != nil {
			return err
		}
		return relationship.ForeignBundles.Delete(tx, "fresh.example.org")
	})
	require.NotContains(t, next, "fresh.example.org")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}
