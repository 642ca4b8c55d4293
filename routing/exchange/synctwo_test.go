package exchange

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/routingtest"
)

// TestTwoStreamsAgree: what one stream stores is announced on the other, where it is not sent again. If a member of the
// peer sends an older set because it is behind, another member corrects it.
func TestTwoStreamsAgree(t *testing.T) {
	eu, us := newPair(t)
	eu.register(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.exports(t, export("shop", "us.example.org"))
	us.imports(t, "shop", "eu.example.org", "")
	connect(t, eu, us, "eu.example.org", "us.example.org")
	routingtest.Eventually(
		t,
		"the instances to arrive",
		func() bool { return us.imported(t, "shop", "eu.example.org").GetInstances() == 1 },
	)
	now := us.imported(t, "shop", "eu.example.org").GetDigest()

	// A second stream, whose other end does not know the instance yet.
	second := us.NewSync(
		Stream{Home: "eu.example.org", Wake: func() {}, Domains: func() []string { return []string{"eu.example.org"} }},
	)
	t.Cleanup(func() { us.syncs.remove(second) })
	_, _ = second.Next(time.Now())
	old := newExportedSet(setKey{"eu.example.org", "shop"}, false, nil)
	require.NoError(t, second.Receive(sets(old.parts()...)))
	require.True(t, second.storeBatch(t.Context(), second.batch()))
	routingtest.Eventually(
		t,
		"the newer set to be brought again",
		func() bool { return us.imported(t, "shop", "eu.example.org").GetDigest() == now },
	)
	require.Len(t, us.instances(t, "shop"), 1)

	// What is lost by other means, such as a restore, is requested again.
	_, err := us.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return registry.ImportedSets.Delete(tx, "shop/eu.example.org")
	})
	require.NoError(t, err)
	routingtest.Eventually(
		t,
		"the set to be back",
		func() bool { return us.imported(t, "shop", "eu.example.org").GetDigest() == now },
	)
}

// TestMemberWithoutLeaderExportsNothing: the state of a member without contact with the leader may be old.
func TestMemberWithoutLeaderExportsNothing(t *testing.T) {
	eu, us := newPair(t)
	eu.register(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.exports(t, export("shop", "us.example.org"))
	us.imports(t, "shop", "eu.example.org", "")
	eu.clock.Isolate(exportSilence + time.Second)
	f := eu.NewSync(
		Stream{Home: "us.example.org", Wake: func() {}, Domains: func() []string { return []string{"us.example.org"} }},
	)
	t.Cleanup(func() { eu.syncs.remove(f) })
	require.NoError(
		t,
		f.Receive(&ententev1.PeerMessage{Content: &ententev1.PeerMessage_Services{Services: &ententev1.PeerServices{
			Subscription: &ententev1.PeerServiceSubscription{
				Number: 1,
				Wanted: []*ententev1.PeerServiceVersion{setKey{"eu.example.org", "shop"}.version(digest{})},
			},
		}}}),
	)
	out, again := f.Next(time.Now())
	require.Empty(t, out)
	require.Equal(t, time.Second, again)
	eu.clock.Pass(0)
	out, _ = f.Next(time.Now())
	require.Len(t, out, 1)
}

// TestLargeSet: a large set is sent in parts, is staged if it does not fit into one command, and later changes are
// written as differences.
func TestLargeSet(t *testing.T) {
	eu, us := newPair(t)
	eu.exports(t, export("shop", "us.example.org"))
	us.imports(t, "shop", "eu.example.org", "")
	p := connect(t, eu, us, "eu.example.org", "us.example.org")
	routingtest.Eventually(t, "the empty set to arrive", func() bool {
		return us.imported(t, "shop", "eu.example.org").GetState() == ententev1.ImportState_IMPORT_STATE_CURRENT
	})
	list := make([]*ententev1.Instance, maxImportedSet)
	for n := range list {
		list[n] = routingtest.Registration()
		list[n].Address = address(n)
		list[n].SpiffeId = "spiffe://eu.example.org/shop/with/a/path/that/takes/some/room/as/those/of/some/platforms/" +
			list[n].GetAddress()[:4]
	}
	eu.replace(t, list)
	routingtest.Eventually(
		t,
		"all instances to arrive",
		func() bool { return us.imported(t, "shop", "eu.example.org").GetInstances() == maxImportedSet },
	)
	require.Len(t, us.instances(t, "shop"), maxImportedSet)
	require.GreaterOrEqual(t, p.ends[0].sent(), 3, "it is sent in parts, after the empty set")

	before := us.instances(t, "shop")[address(7)].GetRevision()
	list[0].Health = ententev1.Health_HEALTH_DRAINING
	eu.replace(t, list)
	routingtest.Eventually(t, "the change to arrive", func() bool {
		return us.instances(t, "shop")[address(0)].GetHealth() == ententev1.Health_HEALTH_DRAINING
	})
	require.Equal(t, before, us.instances(t, "shop")[address(7)].GetRevision(), "only differences are written")

	// One more instance is too many, and the previous set stays.
	one := routingtest.Registration()
	one.Address = address(maxImportedSet)
	eu.replace(t, append(list, one))
	routingtest.Eventually(t, "it to be refused", func() bool {
		return us.imported(t, "shop", "eu.example.org").GetRefusal() == refusedMany
	})
	require.Len(t, us.instances(t, "shop"), maxImportedSet)
	eu.replace(t, list)
	routingtest.Eventually(
		t,
		"the refusal to be over",
		func() bool { return us.imported(t, "shop", "eu.example.org").GetRefusal() == "" },
	)
}

// TestExpiredLeaseIsExportedAsUnhealthy: the exported health is the one that counts at the origin.
func TestExpiredLeaseIsExportedAsUnhealthy(t *testing.T) {
	i, err := registry.ParseInstance(routingtest.Registration())
	require.NoError(t, err)
	i.LeaseExpired, i.Health = true, plan.Unhealthy
	require.Equal(t, ententev1.Health_HEALTH_UNHEALTHY, peerInstance(i).GetHealth())
}

func address(n int) string { return fmt.Sprintf("10.1.%d.%d:443", n/250, n%250+1) }

// TestOneServiceOfTwoDomains: a cluster that hosts two domains exports the instances of each as a set of its own, over
// one stream. Importing both gives one service, and each import has only the instances of its domain.
func TestOneServiceOfTwoDomains(t *testing.T) {
	eu, us := newPair(t)
	us.agree(t, "pay.eu.example.org", "eu.example.org", routingtest.Epoch, true)
	eu.register(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	pay := routingtest.Registration()
	pay.Address, pay.SpiffeId = "10.0.0.2:443", "spiffe://pay.eu.example.org/shop"
	eu.registerInstance(t, pay)
	foreign := routingtest.Registration()
	foreign.Address, foreign.SpiffeId = "10.0.0.3:443", "spiffe://us.example.org/shop"
	eu.registerInstance(t, foreign)
	eu.exports(t, export("shop", "us.example.org"))
	us.imports(t, "shop", "eu.example.org", "")
	us.imports(t, "shop", "pay.eu.example.org", "")
	p := connect(t, eu, us, "eu.example.org", "us.example.org")
	p.ends[1].allow("eu.example.org", "pay.eu.example.org")
	routingtest.Eventually(t, "both sets to arrive", func() bool { return len(us.instances(t, "shop")) == 2 })
	require.Equal(t, "eu.example.org", us.instances(t, "shop")["10.0.0.1:443"].GetOrigin())
	require.Equal(t, "pay.eu.example.org", us.instances(t, "shop")["10.0.0.2:443"].GetOrigin())
	require.NotContains(
		t,
		us.instances(t, "shop"),
		"10.0.0.3:443",
		"what is of another cluster's domain is not eu's to export",
	)

	// The relationship with one domain ends for the stream. Its import is not subscribed to any more, and stays until
	// it expires.
	p.ends[1].allow("eu.example.org")
	routingtest.Eventually(
		t,
		"the peer to confirm the rest",
		func() bool { return slices.Equal(p.ends[1].confirmedDomains(), []string{"eu.example.org"}) },
	)
	require.Len(t, us.instances(t, "shop"), 2)
}
