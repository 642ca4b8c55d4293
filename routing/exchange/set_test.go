package exchange

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/registry"
)

// TestDigestsDistinguishSets: sets that differ in anything have different digests, even if the concatenation of their
// texts is equal.
func TestDigestsDistinguishSets(t *testing.T) {
	seen := map[digest]string{}
	add := func(what string, key setKey, notExported bool, list ...*ententev1.PeerInstance) {
		t.Helper()
		d := digestOfSet(key, notExported, list)
		require.NotContains(t, seen, d, "%s is as %s", what, seen[d])
		seen[d] = what
		require.Equal(t, d, digestOfSet(key, notExported, list))
	}
	shop := setKey{"eu.example.org", "shop"}
	add("empty", shop, false)
	add("not exported", shop, true)
	add("another service", setKey{"eu.example.org", "shop2"}, false)
	add("another domain", setKey{"eu.example.orgs", "hop"}, false)
	add("one", shop, false, peerInstanceWith(nil))
	add("two", shop, false, peerInstanceWith(nil), peerInstanceWith(nil))
	for what, change := range map[string]func(*ententev1.PeerInstance){
		"address":  func(i *ententev1.PeerInstance) { i.Address = "10.0.0.1:444" },
		"region":   func(i *ententev1.PeerInstance) { i.Locality = &ententev1.Locality{Region: "eua"} },
		"zone":     func(i *ententev1.PeerInstance) { i.Locality = &ententev1.Locality{Region: "e", Zone: "ua"} },
		"sub-zone": func(i *ententev1.PeerInstance) { i.Locality = &ententev1.Locality{Region: "eu", SubZone: "a"} },
		"id":       func(i *ententev1.PeerInstance) { i.SpiffeId += "/" },
		"weight":   func(i *ententev1.PeerInstance) { i.Weight = 2 },
		"health":   func(i *ententev1.PeerInstance) { i.Health = ententev1.Health_HEALTH_DRAINING },
	} {
		add(what, shop, false, peerInstanceWith(change))
	}
}

// FuzzParseSet: every accepted set lies in the domain that it was imported from, and consists of instances that could
// be registered here.
func FuzzParseSet(f *testing.F) {
	good, err := proto.Marshal(&ententev1.PeerServiceSet{Instances: []*ententev1.PeerInstance{peerInstanceWith(nil)}})
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte("\x1a\x00"))
	key := setKey{"eu.example.org", "shop"}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var set ententev1.PeerServiceSet
		if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(encoded, &set) != nil {
			return
		}
		list, err := parseSet(
			key,
			digestOfSet(key, set.GetNotExported(), set.GetInstances()),
			set.GetNotExported(),
			set.GetInstances(),
		)
		if err != nil {
			require.NotEmpty(t, reasonOf(err))
			return
		}
		require.Len(t, list, len(set.GetInstances()))
		for n, i := range list {
			require.Equal(t, "eu.example.org", i.ID.TrustDomain().Name())
			require.NotEmpty(t, i.ID.Path())
			require.True(t, proto.Equal(peerInstance(i), set.GetInstances()[n]), "it was changed when it was parsed")
			_, err := registry.ParseInstance(i.Proto())
			require.NoError(t, err)
		}
	})
}
