package grant_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// The removal of a compromised member ends all grants that the member restored from a snapshot, since a snapshot can
// have any content.
// An administrator keeps a restored grant by granting it again on another member.
func TestRestoredGrantsEndWithACompromisedMember(t *testing.T) {
	c := raftstoretest.NewCluster(t, 3)
	granted := func(on int, id string) {
		t.Helper()
		g, err := grant.Parse(&v1.Grant{Role: grant.Operator, SpiffeId: "spiffe://eu.test/" + id})
		require.NoError(t, err)
		s := c.Store(on)
		_, err = s.Update(t.Context(), func(tx *raftstore.Tx) error {
			_, err := grant.Create(tx, g, grant.Origin{By: "admin socket", On: s.MemberID(), At: time.Now()})
			return err
		})
		require.NoError(t, err)
	}
	restored := func(on int) {
		t.Helper()
		var snapshot bytes.Buffer
		_, err := c.Store(on).Snapshots().Save(t.Context(), &snapshot)
		require.NoError(t, err)
		_, err = c.Store(on).Snapshots().Restore(t.Context(), &snapshot)
		require.NoError(t, err)
	}
	left := func(without int) (ids []string) {
		t.Helper()
		s := c.Store(0)
		_, err := s.Update(t.Context(), func(tx *raftstore.Tx) error {
			return grant.RemoveMember(tx, c.Store(without).MemberID(), true, time.Now())
		})
		require.NoError(t, err)
		all, err := grant.List(s.View())
		require.NoError(t, err)
		for _, g := range all {
			ids = append(ids, g.GetSpiffeId()[len("spiffe://eu.test/"):])
		}
		return ids
	}
	granted(0, "before")
	granted(0, "kept")
	granted(2, "elsewhere")
	restored(1)
	granted(0, "kept")
	granted(0, "since")
	restored(2)
	granted(0, "kept")
	granted(0, "since")
	require.Equal(t, []string{"before", "elsewhere", "kept", "since"}, left(1), "restored elsewhere since")
	granted(1, "latest")
	require.Equal(t, []string{"kept", "latest", "since"}, left(2))
	require.Equal(t, []string{"kept", "since"}, left(1))
}
