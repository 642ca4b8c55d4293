package xds

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/internal/xdsupdate"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/trust"
)

// Source makes plans; routing.Planner implements it. Its methods are called from many goroutines, with the state that
// they read.
type Source interface {
	// Services returns the names of all services.
	Services(r raftstore.Reader) ([]string, error)
	// PlanFor returns the plan of a service for callers in a locality who see the trust domains for which sees returns
	// true, and the policy of the plan.
	PlanFor(
		r raftstore.Reader, service string, caller plan.Locality, sees func(spiffeid.TrustDomain) bool,
	) (plan.Plan, *plan.Policy, error)
	// Prefixes lists everything that plans depend on.
	Prefixes() []raftstore.Prefix
	// Affected returns the services that a changed row affects. The reader is at least as new as the change. If known
	// is false, any service may be affected.
	Affected(r raftstore.Reader, change raftstore.Change) (services []string, known bool)
}

// Config is what a [Cache] needs. Store, Source, Roots, Home, Region and Hosts are required.
type Config struct {
	Store  *raftstore.Store
	Source Source
	// Roots returns the domains that can be verified now, hosted and foreign, with their authorities. The caller owns
	// the result.
	Roots func(raftstore.Reader) ([]trust.Roots, error)
	// Home is the home trust domain, and Region the region of a client that does not state one.
	Home   spiffeid.TrustDomain
	Region string
	// Hosts reports whether this cluster hosts a trust domain. Instances of others are marked as foreign.
	Hosts func(raftstore.Reader, spiffeid.TrustDomain) (bool, error)

	// Scope returns which trust domains the caller of a stream sees. If nil, it is [access.ScopeFrom].
	Scope func(context.Context) access.Scope

	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // if nil, time.Now
}

// Bounds of what one stream can subscribe to.
const (
	maxNames      = 4096 // of one type
	maxNameLength = 512
	// maxTypes leaves room for types that clients subscribe to and that are not served, such as extensions of Envoy.
	maxTypes      = 32
	maxTypeLength = 256
)

// Cache answers the streams of go-control-plane's server. It is its cache and, through callbacks, follows its streams.
type Cache struct {
	builder
	// affected are the services that have to be planned again.
	affected *feed.Set[string]
	// served is go-control-plane's server. There is only one, because it numbers the streams.
	served server.Server

	mu       sync.Mutex
	streams  map[string]*stream // by the ID under which the server knows them
	variants map[variantKey]*variant
	// retry are the types of streams that could not be answered because a resource could not be built.
	retry map[*stream]map[Type]bool
}

var _ cache.Cache = (*Cache)(nil)

// NewCache returns a cache. It follows changes while [Cache.Run] runs.
func NewCache(config Config) (*Cache, error) {
	if config.Store == nil || config.Source == nil || config.Roots == nil || config.Home.IsZero() ||
		config.Region == "" || config.Hosts == nil {
		return nil, errors.New("xds: a store, a source, the roots, the home trust domain, the region and the hosted " +
			"domains are required")
	}
	if config.Logger == nil {
		config.Logger = hclog.NewNullLogger()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Scope == nil {
		config.Scope = access.ScopeFrom
	}
	c := &Cache{
		builder: builder{config: config, returning: returning{
			absent: map[spiffeid.TrustDomain]time.Time{}, until: map[spiffeid.TrustDomain]time.Time{},
		}},
		affected: feed.NewSet[string](), streams: map[string]*stream{},
		variants: map[variantKey]*variant{}, retry: map[*stream]map[Type]bool{},
	}
	c.again = func(service string, after time.Duration) {
		time.AfterFunc(after, func() { c.affected.Add(service) })
	}
	var err error
	if c.metrics, err = newMetrics(config.Registerer, c); err != nil {
		return nil, fmt.Errorf("register the metrics of xDS: %w", err)
	}
	c.served = c.newServer()
	return c, nil
}

// open adds a stream that the server has opened.
func (c *Cache) open(ctx context.Context, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams[id] = &stream{
		id: id, caller: access.CallerFrom(ctx), scope: c.config.Scope(ctx), subscriptions: map[Type]*subscription{},
	}
}

// close removes a stream, and the resources that were built only for it.
func (c *Cache) close(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	delete(c.streams, id)
	delete(c.retry, s)
	if s == nil || s.variant == nil {
		return
	}
	for t := range s.subscriptions {
		s.variant.unsubscribe(s, t)
	}
	if s.variant.streams--; s.variant.streams == 0 {
		delete(c.variants, s.variant.key)
	}
}

// CreateWatch implements [cache.ConfigWatcher]. It answers a state-of-the-world request, at once or after a change.
func (c *Cache) CreateWatch(
	request *discovery.DiscoveryRequest, sub cache.Subscription, to chan cache.Response,
) (func(), error) {
	return c.watch(request.GetNode().GetId(), Type(request.GetTypeUrl()), &watch{
		sub: sub, first: request.GetResponseNonce() == "",
		respond: func(u *xdsupdate.Update, version string) { to <- &response{request, u, version} },
	})
}

// CreateDeltaWatch implements [cache.ConfigWatcher] for a delta stream.
func (c *Cache) CreateDeltaWatch(
	request *discovery.DeltaDiscoveryRequest, sub cache.Subscription, to chan cache.DeltaResponse,
) (func(), error) {
	return c.watch(request.GetNode().GetId(), Type(request.GetTypeUrl()), &watch{
		sub: sub, delta: true, first: request.GetResponseNonce() == "",
		respond: func(u *xdsupdate.Update, version string) { to <- &deltaResponse{request, u, version} },
	})
}

// errFetch is the error for polling, which is not served.
var errFetch = errors.New("xDS is served over streams only")

// Fetch implements [cache.ConfigFetcher].
func (c *Cache) Fetch(context.Context, *discovery.DiscoveryRequest) (cache.Response, error) {
	return nil, errFetch
}

// variantFor returns the variant of a client with a scope, which it shares with other streams.
func (c *Cache) variantFor(client Client, scope access.Scope) *variant {
	key := variantKey{client: client, scope: scope.Key()}
	v, ok := c.variants[key]
	if !ok {
		v = newVariant(&c.builder, key, scope.Includes)
		c.variants[key] = v
	}
	return v
}
