package grant_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// A cache has what the state has, after grants, revocations, changes of other callers, and a restore.
func TestCacheFollowsTheState(t *testing.T) {
	c := raftstoretest.NewCluster(t, 1)
	s := c.Store(0)
	one := spiffeid.RequireFromString("spiffe://eu.test/one")
	other := spiffeid.RequireFromString("spiffe://eu.test/other")
	parse := func(role grant.Role, id spiffeid.ID) grant.Grant {
		g, err := grant.Parse(&v1.Grant{Role: role, SpiffeId: id.String()})
		require.NoError(t, err)
		return g
	}
	change := func(change func(tx *raftstore.Tx) error) func() {
		return func() {
			_, err := s.Update(t.Context(), change)
			require.NoError(t, err)
		}
	}
	create := func(g grant.Grant) func() {
		return change(func(tx *raftstore.Tx) error {
			_, err := grant.Create(tx, g, grant.Origin{By: "admin socket", On: s.MemberID(), At: time.Now()})
			return err
		})
	}
	revoke := func(g grant.Grant) func() {
		return change(func(tx *raftstore.Tx) error { return grant.Revoke(tx, g, "", "admin socket", time.Now()) })
	}
	var snapshot bytes.Buffer
	save := func() {
		_, err := s.Snapshots().Save(t.Context(), &snapshot)
		require.NoError(t, err)
	}
	restore := func() {
		_, err := s.Snapshots().Restore(t.Context(), &snapshot)
		require.NoError(t, err)
	}

	var cache grant.Cache
	var roles []int // how many grants the caller has after each step
	for _, step := range []func(){
		func() {},
		create(parse(grant.Reader, other)),
		create(parse(grant.Reader, one)),
		create(parse(grant.Operator, one)),
		revoke(parse(grant.Reader, one)),
		revoke(parse(grant.Reader, other)),
		save,
		create(parse(grant.Issuer, one)),
		restore,
		revoke(parse(grant.Operator, one)),
	} {
		step()
		for _, id := range []spiffeid.ID{one, other, one} {
			want, err := grant.Of(s.View(), id)
			require.NoError(t, err)
			got, err := cache.Of(s.View(), id)
			require.NoError(t, err)
			require.ElementsMatch(t, want, got)
		}
		of, err := cache.Of(s.View(), one)
		require.NoError(t, err)
		roles = append(roles, len(of))
	}
	require.Equal(t, []int{0, 0, 1, 2, 1, 1, 1, 2, 1, 0}, roles)
}
