package xds

import (
	"fmt"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
)

// checkAssignment refuses what the strictest client, gRPC, would: priorities with gaps, a locality twice in a priority, an
// address twice, a weight of 0, weights whose sum overflows. What comes out of a plan never breaks one of these; it is
// checked nevertheless, because a client drops the whole update, and with it the good news in it.
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
			return fmt.Errorf("locality %s/%s/%s is twice in priority %d", key.region, key.zone, key.subZone, p)
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
				return fmt.Errorf("address %s is there twice", address)
			case e.GetLoadBalancingWeight().GetValue() == 0:
				return fmt.Errorf("address %s has no weight", address)
			}
			addresses[address] = true
			if within += uint64(e.GetLoadBalancingWeight().GetValue()); within > maxWeightSum {
				return fmt.Errorf("the weights in locality %s/%s/%s add up to more than 32 bits", key.region, key.zone, key.subZone)
			}
		}
	}
	return nil
}
