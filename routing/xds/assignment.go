package xds

import (
	"fmt"
	"net/netip"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/routing/plan"
)

// assignment returns levels as the endpoints of a cluster. announce sets what else is announced of an endpoint.
func assignment(
	cluster string,
	levels []level,
	announce func(plan.Endpoint, *endpoint.LbEndpoint),
) *endpoint.ClusterLoadAssignment {
	out := &endpoint.ClusterLoadAssignment{ClusterName: cluster}
	for priority, l := range levels {
		weights := make([]uint64, len(l))
		for i, p := range l {
			weights[i] = p.weight
		}
		for i, weight := range fit(weights) {
			out.Endpoints = append(out.Endpoints, &endpoint.LocalityLbEndpoints{
				Locality:            localityOf(l[i].locality),
				Priority:            uint32(priority), //nolint:gosec // G115: there are as many as regions at most
				LoadBalancingWeight: wrapperspb.UInt32(weight),
				LbEndpoints:         endpointsOf(l[i].endpoints, announce),
			})
		}
	}
	return out
}

func endpointsOf(list []weighted, announce func(plan.Endpoint, *endpoint.LbEndpoint)) []*endpoint.LbEndpoint {
	weights := make([]uint64, len(list))
	for i, e := range list {
		weights[i] = e.weight
	}
	out := make([]*endpoint.LbEndpoint, len(list))
	for i, weight := range fit(weights) {
		out[i] = &endpoint.LbEndpoint{
			HostIdentifier: &endpoint.LbEndpoint_Endpoint{
				Endpoint: &endpoint.Endpoint{Address: addressOf(list[i].Address)},
			},
			LoadBalancingWeight: wrapperspb.UInt32(weight),
		}
		announce(list[i].Endpoint, out[i])
	}
	return out
}

// forGRPC announces every endpoint as healthy. These clients drop degraded endpoints, and are sent only those to be
// called.
func forGRPC(plan.Endpoint) core.HealthStatus { return core.HealthStatus_HEALTHY }

// forEnvoy announces every endpoint with its health.
func forEnvoy(e plan.Endpoint) core.HealthStatus {
	switch e.Health {
	case plan.Healthy:
		return core.HealthStatus_HEALTHY
	case plan.Degraded:
		return core.HealthStatus_DEGRADED
	case plan.Draining:
		return core.HealthStatus_DRAINING
	default:
		return core.HealthStatus_UNHEALTHY
	}
}

// unspilled returns the priorities of a plan unchanged, with unavailable endpoints, for clients that compute loads
// themselves.
func unspilled(planned plan.Plan) []level {
	out := make([]level, len(planned.Priorities))
	for i, p := range planned.Priorities {
		for _, l := range p.Localities {
			at := place{locality: l.Locality, weight: max(1, l.Weight)}
			for _, e := range l.Endpoints {
				at.endpoints = append(at.endpoints, weighted{e, uint64(max(1, e.Weight))})
			}
			out[i] = append(out[i], at)
		}
	}
	return out
}

func localityOf(l plan.Locality) *core.Locality {
	return &core.Locality{Region: l.Region, Zone: l.Zone, SubZone: l.SubZone}
}

func addressOf(a netip.AddrPort) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address:       a.Addr().String(),
		PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// checkAssignment returns an error for an assignment that the strictest client, gRPC, would reject: priorities with
// gaps, a locality twice in a priority, an address twice, a weight of 0, or weights whose sum overflows. The assignment
// of a plan has none of these. It is checked nevertheless, because a client drops a rejected update as a whole.
func checkAssignment(a *endpoint.ClusterLoadAssignment) error {
	type at struct {
		priority              uint32
		region, zone, subZone string
	}
	places, addresses, sums := map[at]bool{}, map[string]bool{}, map[uint32]uint64{}
	for _, group := range a.GetEndpoints() {
		l, p := group.GetLocality(), group.GetPriority()
		key := at{p, l.GetRegion(), l.GetZone(), l.GetSubZone()}
		switch {
		case places[key]:
			return fmt.Errorf("locality %s/%s/%s occurs twice in priority %d", key.region, key.zone, key.subZone, p)
		case group.GetLoadBalancingWeight().GetValue() == 0:
			return fmt.Errorf("locality %s/%s/%s of priority %d has no weight", key.region, key.zone, key.subZone, p)
		case p > 0 && sums[p-1] == 0:
			return fmt.Errorf("priority %d follows no priority %d", p, p-1)
		}
		places[key] = true
		if sums[p] += uint64(group.GetLoadBalancingWeight().GetValue()); sums[p] > maxWeightSum {
			return fmt.Errorf("the weights of priority %d add up to more than 32 bits", p)
		}
		within := uint64(0)
		for _, e := range group.GetLbEndpoints() {
			socket := e.GetEndpoint().GetAddress().GetSocketAddress()
			address := fmt.Sprintf("%s %d", socket.GetAddress(), socket.GetPortValue())
			switch {
			case addresses[address]:
				return fmt.Errorf("address %s occurs twice", address)
			case e.GetLoadBalancingWeight().GetValue() == 0:
				return fmt.Errorf("address %s has no weight", address)
			}
			addresses[address] = true
			if within += uint64(e.GetLoadBalancingWeight().GetValue()); within > maxWeightSum {
				return fmt.Errorf(
					"the weights in locality %s/%s/%s add up to more than 32 bits",
					key.region, key.zone, key.subZone,
				)
			}
		}
	}
	return nil
}
