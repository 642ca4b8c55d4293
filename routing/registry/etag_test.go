package registry

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

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
