package registry

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

func (m *member) replace(
	t testing.TB,
	caller access.Caller,
	target *ententev1.ReplaceTarget,
	list []*ententev1.Instance,
) (*ententev1.ReplaceInstancesResponse, error) {
	t.Helper()
	stream, err := m.dial(t, caller).ReplaceInstances(t.Context())
	require.NoError(t, err)
	request := &ententev1.ReplaceInstancesRequest{Target: target}
	for part := range slices.Chunk(list, 1000) {
		request.Instances = part
		if stream.Send(request) != nil { // what it ended with is in the answer
			return stream.CloseAndRecv()
		}
		request = &ententev1.ReplaceInstancesRequest{}
	}
	if len(list) == 0 {
		require.NoError(t, stream.Send(request))
	}
	return stream.CloseAndRecv()
}

func (m *member) sizeOf(t testing.TB, service string) int {
	t.Helper()
	s, err := m.Catalog.Service(m.store.View(), service)
	require.NoError(t, err)
	return len(s.Instances)
}

func TestReplaceService(t *testing.T) {
	m, ctx := newMember(t), routingtest.Admin(t)
	of := &ententev1.ReplaceTarget{Service: "shop"}
	other := routingtest.Registration()
	other.Service = "other"
	_, err := m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: other})
	require.NoError(t, err)

	done, err := m.replace(t, routingtest.Local, of, routingtest.Several("shop", 3, 1))
	require.NoError(t, err)
	require.EqualValues(t, 3, done.GetAdded())
	revision := m.store.View().Revision()
	done, err = m.replace(t, routingtest.Local, of, routingtest.Several("shop", 3, 1))
	require.NoError(t, err)
	require.Equal(t, revision, m.store.View().Revision(), "unchanged instances were written")
	require.Zero(t, done.GetAdded()+done.GetChanged()+done.GetRemoved())

	list := routingtest.Several("shop", 4, 1)[1:]
	list[0].Weight = 9
	done, err = m.replace(t, routingtest.Local, of, list)
	require.NoError(t, err)
	require.EqualValues(
		t,
		[]uint32{1, 1, 1, 3, 1},
		[]uint32{done.GetAdded(), done.GetChanged(), done.GetRemoved(), done.GetInstances(), done.GetServices()},
	)
	require.Equal(t, 3, m.sizeOf(t, "shop"))
	require.Equal(t, 1, m.sizeOf(t, "other"))

	done, err = m.replace(t, routingtest.Local, of, nil)
	require.NoError(t, err)
	require.EqualValues(t, 3, done.GetRemoved())
	require.Zero(t, m.sizeOf(t, "shop"))
}

// TestReplaceStaged: a set that does not fit into a command is staged. Readers see the old set or the new one as a
// whole.
func TestReplaceStaged(t *testing.T) {
	m := newMember(t)
	h, err := m.hold(t, routingtest.Local, tenSeconds())
	require.NoError(t, err)
	of := &ententev1.ReplaceTarget{Lease: h.secret}
	sets := func(weight uint32) []*ententev1.Instance {
		return append(routingtest.Several("shop", 2500, weight), routingtest.Several("store", 2500, weight)...)
	}
	reading := make(chan struct{})
	seen := make(chan error, 1)
	go func() {
		for {
			view := m.store.View()
			var weights [2]uint32
			for n, service := range []string{"shop", "store"} {
				list, err := decode(view, servicePrefix(service))
				switch {
				case err != nil:
				case len(list) == 0:
					continue
				case len(list) != 2500:
					err = fmt.Errorf("%d instances of %s", len(list), service)
				}
				if err != nil {
					seen <- err
					return
				}
				weights[n] = list[0].Weight
				for _, i := range list {
					if i.Weight != weights[n] {
						seen <- fmt.Errorf("weights %d and %d of %s in one state", i.Weight, weights[n], service)
						return
					}
				}
			}
			if weights[0] != weights[1] {
				seen <- fmt.Errorf("weights %v in one state", weights)
				return
			}
			select {
			case <-reading:
				seen <- nil
				return
			default:
			}
		}
	}()
	for weight := range uint32(3) {
		done, err := m.replace(t, routingtest.Local, of, sets(weight+1))
		require.NoError(t, err)
		require.EqualValues(t, 5000, done.GetInstances())
		if weight > 0 {
			require.EqualValues(t, 5000, done.GetChanged())
		}
	}
	close(reading)
	require.NoError(t, <-seen)
	rows, err := Instances.List(m.store.View(), "")
	require.NoError(t, err)
	require.Len(t, rows, 5000, "generations that do not count are left")

	// A small change of the large set is written as such, and a service that is left out is removed.
	revision := m.store.View().Revision()
	done, err := m.replace(t, routingtest.Local, of, append(sets(3)[:2500], routingtest.Several("third", 1, 1)...))
	require.NoError(t, err)
	require.EqualValues(
		t,
		[]uint32{1, 0, 2500, 2},
		[]uint32{done.GetAdded(), done.GetChanged(), done.GetRemoved(), done.GetServices()},
	)
	require.Zero(t, m.sizeOf(t, "store"))
	require.Greater(t, m.store.View().Revision(), revision)
	// The instances of the staged set can be changed as before.
	_, err = h.send(
		&ententev1.KeepLeaseRequest{
			Health: []*ententev1.HealthChange{
				{Service: "shop", Address: "10.0.0.1:443", Health: ententev1.Health_HEALTH_DRAINING},
			},
		},
	)
	require.NoError(t, err)
	health, _ := m.health(t, "10.0.0.1:443")
	require.Equal(t, "draining", health)
}

func TestReplaceRefusals(t *testing.T) {
	m := newMember(t)
	shop := &ententev1.ReplaceTarget{Service: "shop"}
	bad := routingtest.Several("shop", 12, 1)
	for n := range 8 {
		bad[n+2].Address = "shop:443"
	}
	twice := routingtest.Several("shop", 2, 1)
	twice[1].Address = twice[0].GetAddress()
	for _, test := range []struct {
		name   string
		caller access.Caller
		target *ententev1.ReplaceTarget
		list   []*ententev1.Instance
		code   codes.Code
		want   string
	}{
		{
			"no target",
			routingtest.Local,
			nil,
			routingtest.Several("shop", 1, 1),
			codes.InvalidArgument,
			"has to name what is replaced",
		},
		{
			"no such lease",
			routingtest.Local,
			&ententev1.ReplaceTarget{Lease: leaseNamed(1) + leaseNamed(2)},
			nil,
			codes.NotFound,
			"the lease does not exist",
		},
		{
			"another service",
			routingtest.Local,
			shop,
			routingtest.Several("store", 1, 1),
			codes.InvalidArgument,
			"nothing was replaced, because 1 of 1 instances are rejected: instance 0: it belongs to " +
				"service store, but service shop is replaced",
		},
		{
			"twice",
			routingtest.Local,
			shop,
			twice,
			codes.InvalidArgument,
			"instance 1: service shop has the address 10.0.0.0:443 twice",
		},
		{"the first few", routingtest.Local, shop, bad, codes.InvalidArgument, "; and 3 more"},
		{
			"too many",
			routingtest.Local,
			shop,
			routingtest.Several("shop", MaxInstances+1, 1),
			codes.ResourceExhausted,
			"would exceed the limit of 4000",
		},
		{
			"not allowed",
			routingtest.Mallory,
			shop,
			routingtest.Several("shop", 1, 1),
			codes.InvalidArgument,
			"instance 0: ",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := m.replace(t, test.caller, test.target, test.list)
			routingtest.Refused(t, err, test.code, test.want)
			require.Zero(t, m.sizeOf(t, "shop"))
		})
	}
}
