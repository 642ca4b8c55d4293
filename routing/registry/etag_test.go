package registry

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

// TestEtagOfAService: the etag of a service moves with every change of its instances without a lease, by whichever
// call, and with nothing else. A replacement with an earlier one changes nothing.
func TestEtagOfAService(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	etagOf := func() string {
		s, err := m.GetService(ctx, &ententev1.GetServiceRequest{Name: "shop"})
		require.NoError(t, err)
		all, err := m.ListServices(ctx, &ententev1.ListServicesRequest{})
		require.NoError(t, err)
		require.Equal(t, s.GetEtag(), all.GetServices()[0].GetEtag())
		return s.GetEtag()
	}
	list := routingtest.Several("shop", 3, 1)
	replace := func(etag string, list []*ententev1.Instance) error {
		_, err := m.replace(t, routingtest.Local, &ententev1.ReplaceTarget{Service: "shop", Etag: etag}, list)
		return err
	}
	require.NoError(t, replace("0", list))
	first := etagOf()
	routingtest.Refused(t, replace("0", list), codes.Aborted, "service shop exists, in generation "+first)
	require.NoError(t, replace(first, list))
	require.Equal(t, first, etagOf(), "nothing has changed")

	changed := proto.CloneOf(list[0])
	changed.Weight = 7
	_, err := m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: changed})
	require.NoError(t, err)
	second := etagOf()
	require.NotEqual(t, first, second)
	routingtest.Refused(t, replace(first, list), codes.Aborted, "service shop was changed since it was read")
	require.Equal(t, second, etagOf(), "nothing was replaced")
	_, err = m.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
		Service: "shop", Address: list[1].GetAddress(),
	})
	require.NoError(t, err)
	require.NotEqual(t, second, etagOf(), "a removal")

	require.NoError(t, replace(etagOf(), nil))
	routingtest.Refused(t, replace(second, list), codes.Aborted, "service shop was read in generation "+second+
		" and has been deleted since")
	require.NoError(t, replace("0", list))
	require.NotEqual(t, first, etagOf(), "the same instances again are not those that were there")
	_, err = m.replace(t, routingtest.Local, &ententev1.ReplaceTarget{Service: "shop", Lease: "a", Etag: "1"}, nil)
	routingtest.Refused(t, err, codes.InvalidArgument,
		"an etag is that of the instances of a service that have no lease: leave the lease or the etag out")
}

// TestEtagOfAnInstance: an etag moves with what clients set, by whichever call, and stays when a set that is staged
// rewrites its row.
func TestEtagOfAnInstance(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	const name = "the instance of shop at 10.0.0.1:443"
	register := func(weight uint32, lease, etag string) (*ententev1.Instance, error) {
		i := routingtest.Registration()
		i.Weight, i.Lease = weight, lease
		return m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: i, Etag: etag})
	}
	etagOf := func() string {
		s, err := m.Catalog.Service(m.store.View(), "shop")
		require.NoError(t, err)
		for _, i := range s.Instances {
			if i.Address.String() == "10.0.0.1:443" {
				return i.Proto().GetEtag()
			}
		}
		return ""
	}
	first, err := register(1, "", "0")
	require.NoError(t, err)
	require.Equal(t, etagOf(), first.GetEtag())
	_, err = register(2, "", "0")
	routingtest.Refused(t, err, codes.Aborted, name+" exists, in generation "+first.GetEtag())
	same, err := register(1, "", first.GetEtag())
	require.NoError(t, err)
	require.Equal(t, first.GetEtag(), same.GetEtag(), "equal values")
	second, err := register(2, "", first.GetEtag())
	require.NoError(t, err)
	require.NotEqual(t, first.GetEtag(), second.GetEtag())
	_, err = register(3, "", first.GetEtag())
	routingtest.Refused(t, err, codes.Aborted, name+" was changed since it was read")

	// A replacement of the whole set, in place and staged.
	list := routingtest.Several("shop", 1, 1)
	list[0].Address, list[0].Weight = "10.0.0.1:443", 2
	list[0].SpiffeId, list[0].Locality = second.GetSpiffeId(), second.GetLocality()
	all := &ententev1.ReplaceTarget{Service: "shop"}
	_, err = m.replace(t, routingtest.Local, all, list)
	require.NoError(t, err)
	require.Equal(t, second.GetEtag(), etagOf())
	many := routingtest.Several("shop", 3000, 1)
	for _, i := range many {
		i.SpiffeId += strings.Repeat("x", 200)
		if i.GetAddress() != "10.0.0.1:443" {
			list = append(list, i)
		}
	}
	_, err = m.replace(t, routingtest.Local, all, list)
	require.NoError(t, err)
	generation, err := set{service: "shop"}.generation(m.store.View())
	require.NoError(t, err)
	require.NotEqual(t, firstGeneration, generation, "it was not staged")
	require.Equal(t, second.GetEtag(), etagOf())
	list[0].Weight = 5
	_, err = m.replace(t, routingtest.Local, all, list)
	require.NoError(t, err)
	require.NotEqual(t, second.GetEtag(), etagOf())

	deregister := func(etag string) error {
		_, err := m.DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{
			Service: "shop", Address: "10.0.0.1:443", Etag: etag,
		})
		return err
	}
	routingtest.Refused(t, deregister(second.GetEtag()), codes.Aborted, name+" was changed since it was read")
	require.NoError(t, deregister(etagOf()))

	// The health that the holder of a lease reports.
	h, err := m.hold(t, routingtest.Local, tenSeconds())
	require.NoError(t, err)
	leased, err := register(1, h.secret, "0")
	require.NoError(t, err)
	for _, c := range []struct {
		health ententev1.Health
		moves  bool
	}{
		{ententev1.Health_HEALTH_HEALTHY, false}, {ententev1.Health_HEALTH_DEGRADED, true},
		{ententev1.Health_HEALTH_DEGRADED, false},
	} {
		was := etagOf()
		_, err = h.send(&ententev1.KeepLeaseRequest{Health: []*ententev1.HealthChange{
			{Service: "shop", Address: "10.0.0.1:443", Health: c.health},
		}})
		require.NoError(t, err)
		require.Equal(t, c.moves, was != etagOf(), c.health)
	}
	_, err = register(1, "", leased.GetEtag())
	routingtest.Refused(t, err, codes.Aborted, name+" was changed since it was read")
}
