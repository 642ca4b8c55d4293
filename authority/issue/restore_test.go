package issue

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
)

// TestOwnSVIDsOverARestart: a restarted member has the SVIDs that it had, with their keys, until they expire, and has
// new ones signed as soon as it can.
func TestOwnSVIDsOverARestart(t *testing.T) {
	h := newHarness(t)
	folder, err := keys.OpenFolder(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	h.config.Keys = folder
	h.domain.document = []byte("{}")
	h.state.Store(&State{Domains: map[spiffeid.TrustDomain]*Domain{home: h.domain}})

	first := NewOwnSVIDs(h.Issuer)
	require.NoError(t, first.Restore(), "a new member has none")
	_, err = first.Reconcile(t.Context())
	require.NoError(t, err)
	require.NoError(t, first.Renewed())
	member, err := first.Member()
	require.NoError(t, err)
	endpoint, err := first.Endpoint(home)
	require.NoError(t, err)

	restarted := func() *OwnSVIDs {
		o := NewOwnSVIDs(h.Issuer)
		require.NoError(t, o.Restore())
		return o
	}
	second := restarted()
	h.state.Store(&State{})
	_, err = second.Reconcile(t.Context())
	require.NoError(t, err, "no state is loaded yet")
	h.state.Store(&State{Domains: map[spiffeid.TrustDomain]*Domain{home: h.domain}})
	had, err := second.Member()
	require.NoError(t, err)
	require.Equal(t, member, had)
	had, err = second.Endpoint(home)
	require.NoError(t, err)
	require.Equal(t, endpoint, had)
	require.EqualError(t, second.Renewed(), "spiffe://eu.example.org/entente/member/eu-1 was signed before this "+
		"member started, and not renewed since")

	h.audit.refuse = true
	_, err = second.Reconcile(t.Context())
	require.Error(t, err, "nothing signs")
	had, err = second.Member()
	require.NoError(t, err, "it has what it had")
	require.Equal(t, member, had)
	require.Error(t, second.Renewed())

	h.audit.refuse = false
	_, err = second.Reconcile(t.Context())
	require.NoError(t, err)
	require.NoError(t, second.Renewed())
	renewed, err := second.Member()
	require.NoError(t, err)
	require.NotEqual(t, member.Leaf.SerialNumber, renewed.Leaf.SerialNumber)
	had, err = restarted().Member()
	require.NoError(t, err)
	require.Equal(t, renewed, had, "the new one was saved")

	h.now = h.now.Add(2 * time.Hour)
	_, err = restarted().Member()
	require.ErrorIs(t, err, ErrNoSVID, "an expired one is of no use")
}

// TestRestoredSVIDsAreThoseOfTheMember: what the key store has of another member, or with another key, is refused, and
// keys that stay in memory or elsewhere leave nothing on disk.
func TestRestoredSVIDsAreThoseOfTheMember(t *testing.T) {
	h := newHarness(t)
	h.domain.document = []byte("{}")
	h.state.Store(&State{Domains: map[spiffeid.TrustDomain]*Domain{home: h.domain}})
	inMemory := NewOwnSVIDs(h.Issuer)
	_, err := inMemory.Reconcile(t.Context())
	require.NoError(t, err)
	require.NoError(t, NewOwnSVIDs(h.Issuer).Restore())
	_, err = NewOwnSVIDs(h.Issuer).Member()
	require.ErrorIs(t, err, ErrNoSVID)

	folder, err := keys.OpenFolder(filepath.Join(t.TempDir(), "keys"))
	require.NoError(t, err)
	h.config.Keys = folder
	inMemory.unsaved = true
	require.NoError(t, inMemory.save())
	h.config.Member = "eu-2"
	other := NewOwnSVIDs(h.Issuer)
	require.ErrorContains(t, other.Restore(),
		"the SVID is that of spiffe://eu.example.org/entente/member/eu-1, not of this member")
	_, err = other.Member()
	require.ErrorIs(t, err, ErrNoSVID)

	require.NoError(t, folder.SaveSecret(ownSecret, []byte("{}")))
	require.ErrorContains(t, other.Restore(), "read the SVIDs that this member had: ")
}
