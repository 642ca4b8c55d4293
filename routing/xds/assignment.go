package xds

import (
	"net/netip"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/routing/plan"
)

// assignment writes levels as the endpoints of a cluster. health says what each is announced as.
func assignment(cluster string, levels []level, health func(plan.Endpoint) core.HealthStatus) *endpoint.ClusterLoadAssignment {
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
				LbEndpoints:         endpointsOf(l[i].endpoints, health),
			})
		}
	}
	return out
}

func endpointsOf(list []weighted, health func(plan.Endpoint) core.HealthStatus) []*endpoint.LbEndpoint {
	weights := make([]uint64, len(list))
	for i, e := range list {
		weights[i] = e.weight
	}
	out := make([]*endpoint.LbEndpoint, len(list))
	for i, weight := range fit(weights) {
		out[i] = &endpoint.LbEndpoint{
			HostIdentifier:      &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{Address: addressOf(list[i].Address)}},
			HealthStatus:        health(list[i].Endpoint),
			LoadBalancingWeight: wrapperspb.UInt32(weight),
		}
	}
	return out
}

// forGRPC announces everything as healthy: these clients drop what is marked degraded, and only what is to be called goes out.
func forGRPC(plan.Endpoint) core.HealthStatus { return core.HealthStatus_HEALTHY }

// forEnvoy announces everything as it is.
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

// unspilled are the priorities of a plan as they are, with what is unavailable, for clients that compute loads themselves.
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
