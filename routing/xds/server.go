package xds

import (
	"context"
	"strconv"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

// Register serves the aggregated discovery service on a gRPC server, whose interceptors have to put the caller and its
// scope into each stream's context. Streams end with the gRPC server. Several servers can share a cache.
func (c *Cache) Register(to grpc.ServiceRegistrar) {
	discovery.RegisterAggregatedDiscoveryServiceServer(to, aggregated{served: c.served})
}

func (c *Cache) newServer() server.Server {
	return server.NewServer(
		context.Background(),
		c,
		callbacks{c},
		sotw.WithOrderedADS(),
		sotw.WithLogger(log.LoggerFuncs{}),
	)
}

// aggregated serves only the aggregated service: one stream has all types, in the order that they need.
type aggregated struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	served server.Server
}

// StreamAggregatedResources serves state of the world.
func (a aggregated) StreamAggregatedResources(
	s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	return a.served.StreamAggregatedResources(s)
}

// DeltaAggregatedResources serves deltas.
func (a aggregated) DeltaAggregatedResources(
	s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	return a.served.DeltaAggregatedResources(s)
}

// callbacks follow the streams of the server, which numbers those of each protocol. A request reaches the cache with
// its node only, so the node of each request is replaced by one that identifies its stream.
type callbacks struct{ c *Cache }

var _ server.Callbacks = callbacks{}

func wholeID(id int64) string { return "whole/" + strconv.FormatInt(id, 10) }
func deltaID(id int64) string { return "delta/" + strconv.FormatInt(id, 10) }

// OnStreamOpen implements [server.Callbacks].
func (b callbacks) OnStreamOpen(ctx context.Context, id int64, _ string) error {
	b.c.open(ctx, wholeID(id))
	return nil
}

// OnStreamClosed implements [server.Callbacks].
func (b callbacks) OnStreamClosed(id int64, _ *core.Node) { b.c.close(wholeID(id)) }

// OnStreamRequest implements [server.Callbacks].
func (b callbacks) OnStreamRequest(id int64, r *discovery.DiscoveryRequest) (err error) {
	r.Node, err = b.c.requested(wholeID(id), r)
	return err
}

// OnStreamResponse implements [server.Callbacks].
func (b callbacks) OnStreamResponse(
	_ context.Context,
	id int64,
	r *discovery.DiscoveryRequest,
	a *discovery.DiscoveryResponse,
) {
	b.c.sending(wholeID(id), Type(r.GetTypeUrl()), a.GetNonce())
}

// OnDeltaStreamOpen implements [server.Callbacks].
func (b callbacks) OnDeltaStreamOpen(ctx context.Context, id int64, _ string) error {
	b.c.open(ctx, deltaID(id))
	return nil
}

// OnDeltaStreamClosed implements [server.Callbacks].
func (b callbacks) OnDeltaStreamClosed(id int64, _ *core.Node) { b.c.close(deltaID(id)) }

// OnStreamDeltaRequest implements [server.Callbacks].
func (b callbacks) OnStreamDeltaRequest(id int64, r *discovery.DeltaDiscoveryRequest) (err error) {
	r.Node, err = b.c.requested(deltaID(id), r)
	return err
}

// OnStreamDeltaResponse implements [server.Callbacks].
func (b callbacks) OnStreamDeltaResponse(
	id int64,
	r *discovery.DeltaDiscoveryRequest,
	a *discovery.DeltaDiscoveryResponse,
) {
	b.c.sending(deltaID(id), Type(r.GetTypeUrl()), a.GetNonce())
}

// OnFetchRequest implements [server.Callbacks].
func (callbacks) OnFetchRequest(context.Context, *discovery.DiscoveryRequest) error { return errFetch }

// OnFetchResponse implements [server.Callbacks].
func (callbacks) OnFetchResponse(*discovery.DiscoveryRequest, *discovery.DiscoveryResponse) {}

// request is the part that requests of both protocols have in common.
type request interface {
	GetNode() *core.Node
	GetTypeUrl() string
	GetResponseNonce() string
	GetErrorDetail() *rpcstatus.Status
}

// requested records whether a request accepts or rejects the previous update, and returns the node that identifies its
// stream.
func (c *Cache) requested(id string, r request) (*core.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		if err := c.begin(s, r.GetNode()); err != nil {
			return nil, err
		}
		c.settle(s, Type(r.GetTypeUrl()), r)
	}
	return &core.Node{Id: id}, nil
}

// sending records the nonce of an update that is sent.
func (c *Cache) sending(id string, t Type, nonce string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil && s.subscriptions[t] != nil {
		s.subscriptions[t].sent.nonce = nonce
	}
}
