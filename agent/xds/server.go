package xds

import (
	"context"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ads "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// Server is the aggregated discovery service for the programs of a node.
type Server struct {
	ads.UnimplementedAggregatedDiscoveryServiceServer
	// Handler returns the handler of one stream of a method.
	Handler func(method string) discovery.Handler
}

// Open returns a handler whose streams all have the rights of one connection, which outlives the relay.
func (r *Relay) Open(dial Dial) discovery.Handler {
	return discovery.Handler{
		Open: func(_ context.Context, node *core.Node) (discovery.Source, error) {
			return r.Subscribe("", node, dial)
		},
		Rejected: func(_ context.Context, t xdsupdate.Type, resources, reason string) {
			r.cfg.Logger.Warn("a program rejected resources and keeps those that it has", "type", t.Short(),
				"resources", resources, "reason", reason)
		},
	}
}

// StreamAggregatedResources serves state of the world.
func (s Server) StreamAggregatedResources(
	stream ads.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	return discovery.Whole(s.Handler("StreamAggregatedResources"), "", stream)
}

// DeltaAggregatedResources serves deltas.
func (s Server) DeltaAggregatedResources(stream ads.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return discovery.Delta(s.Handler("DeltaAggregatedResources"), "", stream)
}
