package routing

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// several are n instances of a service with a weight.
func several(service string, n int, weight uint32) []*ententev1.Instance {
	var out []*ententev1.Instance
	for k := range n {
		i := registration()
		i.Service, i.Weight, i.Address = service, weight, fmt.Sprintf("10.%d.%d.%d:443", k>>16&255, k>>8&255, k&255)
		out = append(out, i)
	}
	return out
}

func (r *room) replace(t testing.TB, caller access.Caller, target *ententev1.ReplaceTarget, list []*ententev1.Instance) (*ententev1.ReplaceInstancesResponse, error) {
	t.Helper()
	stream, err := r.dial(t, caller).ReplaceInstances(t.Context())
	require.NoError(t, err)
	m := &ententev1.ReplaceInstancesRequest{Target: target}
	for part := range slices.Chunk(list, 1000) {
		m.Instances = part
		if stream.Send(m) != nil { // what it ended with is in the answer
			return stream.CloseAndRecv()
		}
		m = &ententev1.ReplaceInstancesRequest{}
	}
	if len(list) == 0 {
		require.NoError(t, stream.Send(m))
	}
	return stream.CloseAndRecv()
}

var local = access.SocketCaller(0, 1)

func (r *room) sizeOf(t testing.TB, service string) int {
	t.Helper()
	s, err := r.catalog.service(r.store.View(), service)
	require.NoError(t, err)
	return len(s.instances)
}

func TestReplaceService(t *testing.T) {
	r, ctx := newRoom(t), admin(t)
	of := &ententev1.ReplaceTarget{Service: "shop"}
	other := registration()
	other.Service = "other"
	_, err := r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: other})
	require.NoError(t, err)

	done, err := r.replace(t, local, of, several("shop", 3, 1))
	require.NoError(t, err)
	require.EqualValues(t, 3, done.GetAdded())
	revision := r.store.View().Revision()
	done, err = r.replace(t, local, of, several("shop", 3, 1))
	require.NoError(t, err)
	require.Equal(t, revision, r.store.View().Revision(), "what is as it was is written again")
	require.Zero(t, done.GetAdded()+done.GetChanged()+done.GetRemoved())

	list := several("shop", 4, 1)[1:]
	list[0].Weight = 9
	done, err = r.replace(t, local, of, list)
	require.NoError(t, err)
	require.EqualValues(t, []uint32{1, 1, 1, 3, 1}, []uint32{done.GetAdded(), done.GetChanged(), done.GetRemoved(), done.GetInstances(), done.GetServices()})
	require.Equal(t, 3, r.sizeOf(t, "shop"))
	require.Equal(t, 1, r.sizeOf(t, "other"))

	done, err = r.replace(t, local, of, nil)
	require.NoError(t, err)
	require.EqualValues(t, 3, done.GetRemoved())
	require.Zero(t, r.sizeOf(t, "shop"))
}

// A set that does not fit into a command is staged. Whoever reads meanwhile sees all of the old or all of the new.
func TestReplaceStaged(t *testing.T) {
	r := newRoom(t)
	h, err := r.hold(t, local, tenSeconds())
	require.NoError(t, err)
	of := &ententev1.ReplaceTarget{Lease: h.secret}
	sets := func(weight uint32) []*ententev1.Instance {
		return append(several("shop", 2500, weight), several("store", 2500, weight)...)
	}
	reading := make(chan struct{})
	seen := make(chan error, 1)
	go func() {
		for {
			view := r.store.View()
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
		done, err := r.replace(t, local, of, sets(weight+1))
		require.NoError(t, err)
		require.EqualValues(t, 5000, done.GetInstances())
		if weight > 0 {
			require.EqualValues(t, 5000, done.GetChanged())
		}
	}
	close(reading)
	require.NoError(t, <-seen)
	rows, err := Instances.List(r.store.View(), "")
	require.NoError(t, err)
	require.Len(t, rows, 5000, "generations that no longer count stay stored")

	// A small change of the large set is written as such, and a service that is left out is gone.
	revision := r.store.View().Revision()
	done, err := r.replace(t, local, of, append(sets(3)[:2500], several("third", 1, 1)...))
	require.NoError(t, err)
	require.EqualValues(t, []uint32{1, 0, 2500, 2}, []uint32{done.GetAdded(), done.GetChanged(), done.GetRemoved(), done.GetServices()})
	require.Zero(t, r.sizeOf(t, "store"))
	require.Greater(t, r.store.View().Revision(), revision)
	// One instance of it goes on as before.
	_, err = h.ask(&ententev1.HoldLeaseRequest{Health: []*ententev1.HealthChange{{Service: "shop", Address: "10.0.0.1:443", Health: ententev1.Health_HEALTH_DRAINING}}})
	require.NoError(t, err)
	health, _ := r.health(t, "10.0.0.1:443")
	require.Equal(t, "draining", health)
}

func TestReplaceRefusals(t *testing.T) {
	r := newRoom(t)
	shop := &ententev1.ReplaceTarget{Service: "shop"}
	bad := several("shop", 12, 1)
	for n := range 8 {
		bad[n+2].Address = "shop:443"
	}
	twice := several("shop", 2, 1)
	twice[1].Address = twice[0].GetAddress()
	for _, test := range []struct {
		name   string
		caller access.Caller
		target *ententev1.ReplaceTarget
		list   []*ententev1.Instance
		code   codes.Code
		want   string
	}{
		{"no target", local, nil, several("shop", 1, 1), codes.InvalidArgument, "has to say what is replaced"},
		{"no such lease", local, &ententev1.ReplaceTarget{Lease: leaseNamed(1) + leaseNamed(2)}, nil, codes.NotFound, "there is no such lease"},
		{"another service", local, shop, several("store", 1, 1), codes.InvalidArgument, "nothing was replaced, because 1 of 1 instances cannot be taken: instance 0: it is of service store, and what is replaced is shop"},
		{"twice", local, shop, twice, codes.InvalidArgument, "instance 1: service shop has the address 10.0.0.0:443 twice"},
		{"the first few", local, shop, bad, codes.InvalidArgument, "; and 3 more"},
		{"too many", local, shop, several("shop", maxInstances+1, 1), codes.ResourceExhausted, "would pass the most, 4000"},
		{"not allowed", mallory, shop, several("shop", 1, 1), codes.InvalidArgument, "instance 0: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.replace(t, test.caller, test.target, test.list)
			refused(t, err, test.code, test.want)
			require.Zero(t, r.sizeOf(t, "shop"))
		})
	}
}
