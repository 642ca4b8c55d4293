package xds

import (
	"slices"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// weightedCluster is a cluster with its share of the requests.
type weightedCluster struct {
	name   string
	weight uint64
}

// serviceRoutes returns the route table that a gRPC client requests by the name of a service. All requests go to its
// clusters.
func serviceRoutes(service string, clusters []weightedCluster) *route.RouteConfiguration {
	return &route.RouteConfiguration{Name: service, VirtualHosts: []*route.VirtualHost{
		{Name: service, Domains: []string{"*"}, Routes: []*route.Route{everything(action(clusters))}},
	}}
}

// outboundRoutes returns the route table of Envoy. A request goes to the service that is named by its host.
func outboundRoutes(services []string) *route.RouteConfiguration {
	out := &route.RouteConfiguration{
		Name: Outbound,
		// A route can arrive before its cluster, because they are sent one after the other.
		ValidateClusters: wrapperspb.Bool(false),
	}
	for _, service := range slices.Sorted(slices.Values(services)) {
		out.VirtualHosts = append(out.VirtualHosts, &route.VirtualHost{
			Name: service, Domains: []string{service, service + ":*"},
			Routes: []*route.Route{everything(action([]weightedCluster{{service, 1}}))},
		})
	}
	return out
}

func everything(a *route.RouteAction) *route.Route {
	return &route.Route{
		Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: ""}},
		Action: &route.Route_Route{Route: a},
	}
}

// action returns the action that sends requests to clusters. It disables the timeout: the caller decides how long a
// call may take, and Envoy would end streams after 15 seconds.
func action(clusters []weightedCluster) *route.RouteAction {
	a := &route.RouteAction{Timeout: durationpb.New(0)}
	if len(clusters) == 1 {
		a.ClusterSpecifier = &route.RouteAction_Cluster{Cluster: clusters[0].name}
		return a
	}
	weights := make([]uint64, len(clusters))
	for i, c := range clusters {
		weights[i] = c.weight
	}
	split := &route.WeightedCluster{}
	for i, weight := range fit(weights) {
		split.Clusters = append(
			split.Clusters,
			&route.WeightedCluster_ClusterWeight{Name: clusters[i].name, Weight: wrapperspb.UInt32(weight)},
		)
	}
	a.ClusterSpecifier = &route.RouteAction_WeightedClusters{WeightedClusters: split}
	return a
}
