package routing

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestDigestsTellSetsApart: whatever differs of a set differs in its digest, also where texts run into each other.
func TestDigestsTellSetsApart(t *testing.T) {
	seen := map[digest]string{}
	add := func(what string, key sharedKey, withheld bool, list ...*ententev1.PeerInstance) {
		t.Helper()
		d := digestOfSet(key, withheld, list)
		require.NotContains(t, seen, d, "%s is as %s", what, seen[d])
		seen[d] = what
		require.Equal(t, d, digestOfSet(key, withheld, list))
	}
	shop := sharedKey{"eu.example.org", "shop"}
	add("empty", shop, false)
	add("withheld", shop, true)
	add("another service", sharedKey{"eu.example.org", "shop2"}, false)
	add("another domain", sharedKey{"eu.example.orgs", "hop"}, false)
	add("one", shop, false, peerInstance(nil))
	add("two", shop, false, peerInstance(nil), peerInstance(nil))
	for what, change := range map[string]func(*ententev1.PeerInstance){
		"address":  func(i *ententev1.PeerInstance) { i.Address = "10.0.0.1:444" },
		"region":   func(i *ententev1.PeerInstance) { i.Locality = &ententev1.Locality{Region: "eua"} },
		"zone":     func(i *ententev1.PeerInstance) { i.Locality = &ententev1.Locality{Region: "e", Zone: "ua"} },
		"sub-zone": func(i *ententev1.PeerInstance) { i.Locality = &ententev1.Locality{Region: "eu", SubZone: "a"} },
		"id":       func(i *ententev1.PeerInstance) { i.SpiffeId += "/" },
		"weight":   func(i *ententev1.PeerInstance) { i.Weight = 2 },
		"health":   func(i *ententev1.PeerInstance) { i.Health = ententev1.Health_HEALTH_DRAINING },
	} {
		add(what, shop, false, peerInstance(change))
	}
}

// FuzzReadSet: whatever a peer brings, what is taken of it lies in the domain that it was imported from, and would be taken from
// somebody who registers it here.
func FuzzReadSet(f *testing.F) {
	good, err := proto.Marshal(&ententev1.PeerServiceSet{Instances: []*ententev1.PeerInstance{peerInstance(nil)}})
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte("\x1a\x00"))
	key := sharedKey{"eu.example.org", "shop"}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var set ententev1.PeerServiceSet
		if (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(encoded, &set) != nil {
			return
		}
		list, err := readSet(key, digestOfSet(key, set.GetWithheld(), set.GetInstances()), set.GetWithheld(), set.GetInstances())
		if err != nil {
			require.NotEmpty(t, reasonOf(err))
			return
		}
		require.Len(t, list, len(set.GetInstances()))
		for n, i := range list {
			require.Equal(t, "eu.example.org", i.ID.TrustDomain().Name())
			require.NotEmpty(t, i.ID.Path())
			require.True(t, proto.Equal(traveling(i), set.GetInstances()[n]), "it was changed on the way in")
			_, err := ParseInstance(i.Proto())
			require.NoError(t, err)
		}
	})
}
