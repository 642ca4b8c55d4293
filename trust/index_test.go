package trust_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

func TestIndexVerifiesCallers(t *testing.T) {
	store, index := world(t), trust.NewIndex(sources())
	index.Open(store)
	for name, refusal := range map[string]string{
		"hosted.test":   "",
		"foreign.test":  "",
		"attested.test": "",
		"suspended.test": "the relationship with suspended.test is suspended; resume it with 'entente federation " +
			"resume suspended.test'",
		"pending.test": "no bundle of pending.test has been received yet; see 'entente federation show pending.test'",
		"other.test": "other.test is neither hosted here nor federated with; " +
			"'entente federation create other.test' creates a relationship",
	} {
		t.Run(name, func(t *testing.T) {
			td := spiffeid.RequireTrustDomainFromString(name)
			state, err := index.State(store.View(), td)
			require.NoError(t, err)
			require.Equal(t, refusal == "", state.Verifiable())
			roots, err := index.GetX509BundleForTrustDomain(td)
			if refusal != "" {
				require.EqualError(t, err, refusal)
				return
			}
			require.NoError(t, err)
			require.Equal(t, name, roots.X509Authorities()[0].URIs[0].Host)
		})
	}
}

func TestIndexRoots(t *testing.T) {
	roots, err := trust.NewIndex(sources()).Roots(world(t).View())
	require.NoError(t, err)
	var names []string
	for _, r := range roots {
		names = append(names, r.TrustDomain.Name())
		require.Len(t, r.Authorities, 1)
	}
	require.Equal(t, []string{
		"hosted-and-attested.test", "hosted.test", "foreign-and-attested.test", "foreign.test", "attested.test",
	}, names)
}

// TestIndexSharesWhatItMakes: a bundle and a message are made once a revision, and again after a change.
func TestIndexSharesWhatItMakes(t *testing.T) {
	store, index := world(t), trust.NewIndex(sources())
	read := func() (any, *ententev1.Bundle) {
		b, found, err := index.Bundle(store.View(), "foreign.test")
		require.NoError(t, err)
		require.True(t, found)
		m, found, err := index.Message(store.View(), "foreign.test")
		require.NoError(t, err)
		require.True(t, found)
		return b, m
	}
	b, m := read()
	update(t, store, func(tx *raftstore.Tx) error {
		return foreign.Put(tx, "other.test", bundleOf(t, "other.test", 1).Row(time.Now()))
	})
	b2, m2 := read()
	require.Same(t, b, b2)
	require.Same(t, m, m2)

	update(t, store, func(tx *raftstore.Tx) error {
		row, _, err := relationships.Get(tx, "foreign.test")
		if err != nil {
			return err
		}
		row.Value.AuthorityKinds = []int32{int32(ententev1.AuthorityKind_AUTHORITY_KIND_JWT)}
		return relationships.Put(tx, "foreign.test", row.Value)
	})
	b2, m2 = read()
	require.Same(t, b, b2)
	require.Zero(t, m2.GetX509Authorities(), "the relationship allows no X.509 authorities any more")

	update(t, store, func(tx *raftstore.Tx) error {
		return foreign.Put(tx, "foreign.test", bundleOf(t, "foreign.test", 4).Row(time.Now()))
	})
	b2, m2 = read()
	require.NotSame(t, b, b2)
	require.Equal(t, uint64(4), m2.GetSequence())
}

func TestIndexMessages(t *testing.T) {
	messages, err := trust.NewIndex(sources()).Messages(world(t).View())
	require.NoError(t, err)
	require.Equal(t, []string{
		"attested.test", "foreign-and-attested.test", "foreign.test", "hosted-and-attested.test", "hosted.test",
	}, slices.Sorted(maps.Keys(messages)), "a suspended bundle is not returned")
	require.True(t, messages["hosted.test"].GetHosted())
	require.Equal(t, ententev1.Freshness_FRESHNESS_STALE, messages["attested.test"].GetFreshness())
}

func TestIndexMapEntries(t *testing.T) {
	store, index := world(t), trust.NewIndex(sources())
	update(t, store, func(tx *raftstore.Tx) error {
		return relationships.Put(tx, "foreign.test", &statev1.Relationship{TrustDomain: "foreign.test", Attest: true})
	})
	for name, want := range map[string]bool{
		"hosted.test": true, "foreign.test": true, "foreign-and-attested.test": false, "attested.test": false,
		"other.test": false,
	} {
		entry, found, err := index.MapEntry(store.View(), name)
		require.NoError(t, err)
		require.Equal(t, want, found, name)
		if found {
			require.Equal(t, name, entry.TrustDomain.Name())
			require.Contains(t, string(entry.Document), `"keys":[`)
		}
	}
	all, err := index.AttestedEntries(store.View())
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, "foreign.test", all[0].TrustDomain.Name())
}

func TestIndexWithoutStatements(t *testing.T) {
	list, revision, err := trust.NewIndex(sources()).Statements(world(t).View(), "hosted.test")
	require.NoError(t, err)
	require.Nil(t, list)
	require.Zero(t, revision)
}
