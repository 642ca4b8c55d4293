package issue

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// TestMemberHost: the SVID of a member names the host by which the member is reached, and no other SVID does.
func TestMemberHost(t *testing.T) {
	store := raftstoretest.New(t)
	_, err := store.Update(t.Context(), func(tx *raftstore.Tx) error {
		for id, address := range map[string]string{
			"name": "eu-1.example.org:7440", "v4": "192.0.2.1:7440", "v6": "[2001:db8::1]:7440",
			"mapped": "[::ffff:192.0.2.1]:7440", "none": "nowhere",
		} {
			if err := membership.Members.Put(tx, id, &statev1.Member{Id: id, Address: address}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	for id, want := range map[string]struct {
		names []string
		ips   []netip.Addr
	}{
		"spiffe://eu.example.org/entente/member/name":     {names: []string{"eu-1.example.org"}},
		"spiffe://eu.example.org/entente/member/v4":       {ips: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		"spiffe://eu.example.org/entente/member/v6":       {ips: []netip.Addr{netip.MustParseAddr("2001:db8::1")}},
		"spiffe://eu.example.org/entente/member/mapped":   {ips: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		"spiffe://eu.example.org/entente/member/none":     {},
		"spiffe://eu.example.org/entente/member/unknown":  {},
		"spiffe://eu.example.org/entente/bundle-endpoint": {},
		"spiffe://eu.example.org/member/name":             {},
		"spiffe://us.example.org/entente/member/name":     {},
	} {
		names, ips, err := MemberHost(store.View(), home, spiffeid.RequireFromString(id), "")
		require.NoError(t, err, id)
		require.Equal(t, want.names, names, id)
		require.Equal(t, want.ips, ips, id)

		names, ips, err = MemberHost(store.View(), home, spiffeid.RequireFromString(id), "eu.example.org")
		require.NoError(t, err, id)
		require.Equal(t, want.ips, ips, id)
		if _, found, _ := membership.Members.Get(store.View(), id[strings.LastIndex(id, "/")+1:]); found &&
			strings.HasPrefix(id, "spiffe://eu.example.org/entente/member/") {
			require.Equal(t, append(want.names, "eu.example.org"), names, id)
		} else {
			require.Empty(t, names, "%s is no member, and has the name of the members", id)
		}
	}
}
