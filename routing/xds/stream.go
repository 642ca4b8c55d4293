package xds

import (
	"fmt"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// stream is an open stream. The cache's lock guards it.
type stream struct {
	id     string
	caller access.Caller
	scope  access.Scope
	// variant is set by the first request, which describes the client.
	variant       *variant
	subscriptions map[Type]*subscription
}

// subscription is what a stream subscribes to of one type.
type subscription struct {
	names    map[string]struct{}
	wildcard bool
	// watch is open while the client waits for a change. It is nil between an update and its acknowledgement.
	watch *watch
	// sent is the update that the client has not acknowledged yet.
	sent  sent
	nacks xdsupdate.Nacks
}

type sent struct {
	nonce   string
	changed map[string]*xdsupdate.Resource
}

// watch is a request that is answered, once, as soon as there is something to send.
type watch struct {
	sub   cache.Subscription
	delta bool
	// first means that it is the first request for its type on the stream.
	first bool
	// respond passes the update to the server. It does not block: the server's channel has room for one of each type.
	respond func(*xdsupdate.Update, string)
}

// begin parses the node of a stream's first request.
func (c *Cache) begin(s *stream, node *core.Node) error {
	if s.variant != nil {
		return nil
	}
	if node.GetId() == "" {
		return status.Error(
			codes.InvalidArgument,
			"the first request of a stream has to name its node: set the id of the node",
		)
	}
	client, err := ClientOf(node, c.config.Region)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	s.variant = c.variantFor(client, s.scope)
	s.variant.streams++
	c.config.Logger.Debug(
		"stream",
		"caller", s.caller.String(), "kind", client.Kind, "locality", client.Locality.String(),
	)
	return nil
}

// watch takes over a request of a stream, and answers it if there is something to send now.
func (c *Cache) watch(id string, t Type, w *watch) (func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	if s == nil || s.variant == nil {
		return nil, status.Error(codes.Internal, "a request arrived on a stream that was not opened")
	}
	names := w.sub.SubscribedResources()
	if err := checkNames(names); err != nil {
		return nil, err
	}
	sub := s.subscriptions[t]
	if sub == nil {
		if len(s.subscriptions) >= maxTypes || len(t) > maxTypeLength {
			return nil, status.Errorf(codes.ResourceExhausted,
				"the stream subscribes to more than %d types of resources, or to one whose name has more than %d bytes",
				maxTypes, maxTypeLength)
		}
		sub = &subscription{}
		s.subscriptions[t] = sub
	}
	// Only Envoy subscribes to everything by naming nothing; for gRPC it means that the last watch has ended.
	wildcard := w.sub.IsWildcard() && t.Whole() && s.variant.key.client.Kind == Envoy
	s.variant.subscribe(s, t, names, wildcard)
	sub.watch = w
	c.send(s, t)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if sub.watch == w {
			sub.watch = nil
		}
	}, nil
}

func checkNames(names map[string]struct{}) error {
	if len(names) > maxNames {
		return status.Errorf(codes.ResourceExhausted,
			"the stream subscribes to %d resources of one type; %d are allowed", len(names), maxNames)
	}
	for name := range names {
		if len(name) > maxNameLength {
			return status.Errorf(codes.InvalidArgument,
				"the name of a resource has %d bytes; %d are allowed", len(name), maxNameLength)
		}
	}
	return nil
}

// send answers the open watch of a type if there is something to send. If a resource cannot be built, the client keeps
// what it has, and the watch stays open until the resource can be built.
func (c *Cache) send(s *stream, t Type) {
	sub := s.subscriptions[t]
	if sub == nil || sub.watch == nil {
		return
	}
	w := sub.watch
	wanted, err := s.variant.wanted(c.config.Store.View(), t, sub)
	if err != nil {
		c.unsendable(t, err)
		if c.retry[s] == nil {
			c.retry[s] = map[Type]bool{}
		}
		c.retry[s][t] = true
		return
	}
	has := w.sub.ReturnedResources()
	u := xdsupdate.Difference(t, w.delta, wanted, has, sub.nacks)
	if u == nil && w.first && sub.wildcard && len(has) == 0 {
		u = &xdsupdate.Update{Has: map[string]string{}} // Envoy waits for a response before it starts to serve
	}
	if u == nil {
		return
	}
	sub.watch = nil
	sub.sent = sent{changed: u.Changed}
	c.metrics.updates.WithLabelValues(t.Short()).Inc()
	w.respond(u, u.Version())
}

// settle records whether a client accepts or rejects the update that its request refers to.
func (c *Cache) settle(s *stream, t Type, r request) {
	sub := s.subscriptions[t]
	if sub == nil || r.GetResponseNonce() == "" || r.GetResponseNonce() != sub.sent.nonce {
		return
	}
	changed := sub.sent.changed
	sub.sent = sent{}
	if r.GetErrorDetail() == nil {
		if t.Whole() {
			sub.nacks.Accept(changed)
		}
		return
	}
	reason := r.GetErrorDetail().GetMessage()
	names := sub.nacks.Reject(changed, reason)
	kind := s.variant.key.client.Kind
	c.metrics.rejected.WithLabelValues(t.Short(), kind.String()).Inc()
	c.config.Logger.Warn(
		"a client rejected an update and keeps what it had; the same version is not sent again",
		"caller", s.caller.String(), "kind", kind, "type", t.Short(), "resources", clip(fmt.Sprint(names)),
		"reason", clip(reason),
	)
}

// clip bounds what a client can add to the log.
func clip(text string) string {
	const limit = 300
	if len(text) > limit {
		return text[:limit] + "…"
	}
	return text
}
