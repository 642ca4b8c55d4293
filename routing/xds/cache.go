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
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/trust"
)

// Source is where routes come from; [routing.Manager] is one. Its methods are called from many goroutines, with the state
// that they are to read.
type Source interface {
	// Services lists the names of all services.
	Services(r raftstore.Reader) ([]string, error)
	// PlanFor plans a service for callers in a place who see the trust domains for which sees is true, and returns the policy
	// that it planned by.
	PlanFor(r raftstore.Reader, service string, caller plan.Locality, sees func(spiffeid.TrustDomain) bool) (plan.Plan, *plan.Policy, error)
	// Prefixes names all that plans depend on.
	Prefixes() []raftstore.Prefix
	// Affected says which services a changed row is of, in a state that is as new as the change or newer; false: it may be any.
	Affected(r raftstore.Reader, change raftstore.Change) (services []string, known bool)
}

// Config is what a cache stands on. Store, Source, Roots, Home and Region are required.
type Config struct {
	Store  *raftstore.Store
	Source Source
	// Roots lists the domains that can be verified now, hosted and foreign, with their authorities. Its result belongs to
	// the caller.
	Roots func(raftstore.Reader) ([]trust.Roots, error)
	// Home is the home trust domain, and Region where a client is that says nothing of it.
	Home   spiffeid.TrustDomain
	Region string

	// Scope says what the caller of a stream sees; nil: [access.ScopeFrom].
	Scope func(context.Context) access.Scope

	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // nil: time.Now
}

// Bounds of what one stream can ask for.
const (
	maxNames      = 4096 // of one type
	maxNameLength = 512
	// maxTypes leaves room for types that are asked for and not served, such as Envoy's extensions.
	maxTypes      = 32
	maxTypeLength = 256
	// maxReason is how much is read of what a client says when it refuses an update.
	maxReason = 8 << 10
)

// Cache answers the streams of go-control-plane's server. It is its cache and its callbacks.
type Cache struct {
	config  Config
	log     hclog.Logger
	metrics *metrics
	changes *changes
	// served is go-control-plane's server. There is one, since it numbers the streams.
	served server.Server

	mu       sync.Mutex
	streams  map[string]*stream // by the ID under which the server knows them
	variants map[variantKey]*variant
	// again are the types of streams that could not be answered because something could not be built.
	again map[*stream]map[Type]bool
}

var _ cache.Cache = (*Cache)(nil)

// NewCache makes a cache. It notices changes while [Cache.Run] runs.
func NewCache(config Config) (*Cache, error) {
	if config.Store == nil || config.Source == nil || config.Roots == nil || config.Home.IsZero() || config.Region == "" {
		return nil, errors.New("xds: a store, a source, the roots, the home trust domain and the region are required")
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
	c := &Cache{config: config, log: config.Logger, changes: newChanges(), streams: map[string]*stream{}, variants: map[variantKey]*variant{}, again: map[*stream]map[Type]bool{}}
	var err error
	if c.metrics, err = newMetrics(config.Registerer, c); err != nil {
		return nil, fmt.Errorf("register the metrics of xDS: %w", err)
	}
	c.served = c.newServer()
	return c, nil
}

// open takes down a stream that the server has opened under an ID.
func (c *Cache) open(ctx context.Context, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams[id] = &stream{id: id, caller: access.CallerFrom(ctx), scope: c.config.Scope(ctx), asked: map[Type]*asked{}}
}

// close forgets a stream, and what was built for it alone.
func (c *Cache) close(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	delete(c.streams, id)
	delete(c.again, s)
	if s == nil || s.variant == nil {
		return
	}
	for t := range s.asked {
		s.variant.forget(s, t)
	}
	if s.variant.streams--; s.variant.streams == 0 {
		delete(c.variants, s.variant.key)
	}
}

// CreateWatch implements [cache.ConfigWatcher]: it answers a state-of-the-world request, at once or when there is news.
func (c *Cache) CreateWatch(request *discovery.DiscoveryRequest, sub cache.Subscription, to chan cache.Response) (func(), error) {
	return c.watch(request.GetNode().GetId(), Type(request.GetTypeUrl()), &watch{
		sub: sub, first: request.GetResponseNonce() == "",
		respond: func(a *answer, version string) { to <- &response{request, a, version} },
	})
}

// CreateDeltaWatch implements [cache.ConfigWatcher] for a delta stream.
func (c *Cache) CreateDeltaWatch(request *discovery.DeltaDiscoveryRequest, sub cache.Subscription, to chan cache.DeltaResponse) (func(), error) {
	return c.watch(request.GetNode().GetId(), Type(request.GetTypeUrl()), &watch{
		sub: sub, delta: true, first: request.GetResponseNonce() == "",
		respond: func(a *answer, version string) { to <- &deltaResponse{request, a, version} },
	})
}

// errFetch is the answer to polling, which is not served.
var errFetch = errors.New("xDS is served over streams alone")

// Fetch implements [cache.ConfigFetcher].
func (c *Cache) Fetch(context.Context, *discovery.DiscoveryRequest) (cache.Response, error) {
	return nil, errFetch
}

// variantFor returns the variant of a client with some scope, and makes it if no other stream shares it yet.
func (c *Cache) variantFor(client Client, scope access.Scope) *variant {
	key := variantKey{client: client, scope: scope.Key()}
	v, ok := c.variants[key]
	if !ok {
		v = newVariant(key, scope.Includes)
		c.variants[key] = v
	}
	return v
}
