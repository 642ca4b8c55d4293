package xds

import (
	"fmt"
	"maps"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
)

// stream is what is known of one open stream. The cache's lock guards it.
type stream struct {
	id     string
	caller access.Caller
	scope  access.Scope
	// variant is set by the first request, which says what the client is.
	variant *variant
	asked   map[Type]*asked
}

// asked is what a stream asked for of one type.
type asked struct {
	names    map[string]struct{}
	wildcard bool
	// watch is open while the client waits for news; nil between an answer and its acknowledgement.
	watch *watch
	// sent is the answer that the client has not acknowledged yet.
	sent     sent
	refusals refusals
}

type sent struct {
	nonce   string
	changed map[string]*resource
}

// watch is a request that is answered when there is something to say. It is answered once.
type watch struct {
	sub   cache.Subscription
	delta bool
	// first says that it is the first request for its type on the stream.
	first bool
	// respond hands the answer to the server. It does not block: the server's channel has room for one of each type.
	respond func(*answer, string)
}

// begin reads the node of a stream's first request.
func (c *Cache) begin(s *stream, node *core.Node) error {
	if s.variant != nil {
		return nil
	}
	if node.GetId() == "" {
		return status.Error(codes.InvalidArgument, "the first request of a stream has to name the node that it comes from: give it an id")
	}
	client, err := ClientOf(node, c.config.Region)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	s.variant = c.variantFor(client, s.scope)
	s.variant.streams++
	c.log.Debug("stream", "caller", s.caller.String(), "kind", client.Kind, "locality", client.Locality.String())
	return nil
}

// watch takes a request of a stream, and answers it if there is anything to say now.
func (c *Cache) watch(id string, t Type, w *watch) (func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	if s == nil || s.variant == nil {
		return nil, status.Error(codes.Internal, "a request came on a stream that was not opened")
	}
	names := w.sub.SubscribedResources()
	if err := checkNames(names); err != nil {
		return nil, err
	}
	a := s.asked[t]
	if a == nil {
		if len(s.asked) >= maxTypes || len(t) > maxTypeLength {
			return nil, status.Errorf(codes.ResourceExhausted, "more than %d types of resources are asked for on one stream, or one by a name of more than %d bytes", maxTypes, maxTypeLength)
		}
		a = &asked{}
		s.asked[t] = a
	}
	// Only Envoy means everything when it asks for nothing; gRPC has ended its last watch then.
	wildcard := w.sub.IsWildcard() && t.whole() && s.variant.key.client.Kind == Envoy
	s.variant.note(s, t, a, names, wildcard)
	a.watch = w
	c.answer(s, t)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if a.watch == w {
			a.watch = nil
		}
	}, nil
}

func checkNames(names map[string]struct{}) error {
	if len(names) > maxNames {
		return status.Errorf(codes.ResourceExhausted, "%d resources of one type are asked for on one stream; %d are the most", len(names), maxNames)
	}
	for name := range names {
		if len(name) > maxNameLength {
			return status.Errorf(codes.InvalidArgument, "the name of a resource has %d bytes; %d are the most", len(name), maxNameLength)
		}
	}
	return nil
}

// answer answers the open watch of a type if there is anything to say. What cannot be built is left as the client has it:
// the watch stays open until it can.
func (c *Cache) answer(s *stream, t Type) {
	asked := s.asked[t]
	if asked == nil || asked.watch == nil {
		return
	}
	w := asked.watch
	wanted, err := c.wanted(s, c.config.Store.View(), t, asked.names, asked.wildcard)
	if err != nil {
		c.unsendable(t, err)
		if c.again[s] == nil {
			c.again[s] = map[Type]bool{}
		}
		c.again[s][t] = true
		return
	}
	has := w.sub.ReturnedResources()
	a := difference(t, w.delta, wanted, has, asked.refusals)
	if a == nil && w.first && asked.wildcard && len(has) == 0 {
		a = &answer{has: map[string]string{}} // it waits for an answer before it begins to serve
	}
	if a == nil {
		return
	}
	asked.watch = nil
	asked.sent = sent{changed: a.changed}
	c.metrics.pushes.WithLabelValues(t.short()).Inc()
	w.respond(a, a.version())
}

func (c *Cache) unsendable(t Type, err error) {
	c.metrics.unsendable.WithLabelValues(t.short()).Inc()
	c.log.Error("an update cannot be sent; clients go on with what they have", "type", t.short(), "error", err)
}

// settle takes down whether a client accepted the answer that it speaks of.
func (c *Cache) settle(s *stream, t Type, nonce string, refused bool, message string) {
	asked := s.asked[t]
	if asked == nil || nonce == "" || nonce != asked.sent.nonce {
		return
	}
	changed := asked.sent.changed
	asked.sent = sent{}
	if !refused {
		if t.whole() {
			asked.refusals.accept(changed)
		}
		return
	}
	names := asked.refusals.refuse(changed, message[:min(len(message), maxReason)])
	c.metrics.refused.WithLabelValues(t.short(), s.variant.key.client.Kind.String()).Inc()
	c.log.Warn("a client refused an update, and goes on with what it had; it is not sent that again", "caller", s.caller.String(),
		"kind", s.variant.key.client.Kind, "type", t.short(), "resources", clip(fmt.Sprint(names)), "reason", clip(message))
}

// clip keeps what a client says from filling the log.
func clip(text string) string {
	const most = 300
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// note takes down what a stream asks for now.
func (v *variant) note(s *stream, t Type, a *asked, names map[string]struct{}, wildcard bool) {
	for name := range a.names {
		if _, still := names[name]; !still {
			v.lose(s, typedName{t, name})
		}
	}
	for name := range names {
		key := typedName{t, name}
		if v.interest[key] == nil {
			v.interest[key] = map[*stream]bool{}
		}
		v.interest[key][s] = true
	}
	switch {
	case wildcard && v.wild[t] == nil:
		v.wild[t] = map[*stream]bool{s: true}
	case wildcard:
		v.wild[t][s] = true
	default:
		delete(v.wild[t], s)
	}
	a.names, a.wildcard = maps.Clone(names), wildcard
}

// forget takes a stream out of all that it asked for of a type.
func (v *variant) forget(s *stream, t Type) {
	for name := range s.asked[t].names {
		v.lose(s, typedName{t, name})
	}
	delete(v.wild[t], s)
	if len(v.wild[t]) == 0 {
		delete(v.wild, t)
	}
}

// lose ends a stream's interest in a resource. What nobody is interested in is not kept.
func (v *variant) lose(s *stream, key typedName) {
	delete(v.interest[key], s)
	if len(v.interest[key]) > 0 {
		return
	}
	delete(v.interest, key)
	if len(v.wild) > 0 {
		return // whoever asked for everything keeps everything
	}
	delete(v.others, key)
	service, _, _ := serviceOf(key.of, key.name)
	if state := v.services[service]; state != nil {
		delete(state.resources, key)
		if len(state.resources) == 0 {
			delete(v.services, service)
		}
	}
}
