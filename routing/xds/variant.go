package xds

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// resource is one resource in one version, shared by all streams that are sent it.
type resource struct {
	name    string
	version string
	// body is nil where the resource does not exist and there is no message that says so.
	body *anypb.Any
	// absent says that it does not exist; body is then what a state-of-the-world stream is sent in its place.
	absent bool
}

// absentVersion is the version of what does not exist.
const absentVersion = "absent"

type typedName struct {
	of   Type
	name string
}

// variantKey is what all streams of a variant have in common. Scope is the key of their rights.
type variantKey struct {
	client Client
	scope  string
}

// variant holds what streams of one kind, in one place and with one set of rights, are sent. It belongs to the cache, whose
// lock guards it.
type variant struct {
	key  variantKey
	sees func(spiffeid.TrustDomain) bool

	services map[string]*serviceState
	// others are the resources that belong to no service.
	others map[typedName]*resource
	// interest has the streams that asked for a resource by name, wild those that asked for all of a type.
	interest map[typedName]map[*stream]bool
	wild     map[Type]map[*stream]bool
	streams  int
}

// serviceState is what was built of a service.
type serviceState struct {
	offer     offer
	resources map[typedName]*resource
	// lingers is until when the clusters of a service that is gone are kept: what refers to them goes first.
	lingers time.Time
}

func newVariant(key variantKey, sees func(spiffeid.TrustDomain) bool) *variant {
	return &variant{
		key: key, sees: sees, services: map[string]*serviceState{}, others: map[typedName]*resource{},
		interest: map[typedName]map[*stream]bool{}, wild: map[Type]map[*stream]bool{},
	}
}

// service returns what is known of a service, and finds it out if nothing is.
func (c *Cache) service(v *variant, r raftstore.Reader, name string) (*serviceState, error) {
	if s, ok := v.services[name]; ok {
		return s, nil
	}
	o, err := c.offer(v, r, name)
	if err != nil {
		return nil, err
	}
	s := &serviceState{offer: o, resources: map[typedName]*resource{}}
	v.services[name] = s
	return s, nil
}

func (c *Cache) offer(v *variant, r raftstore.Reader, name string) (offer, error) {
	plan, policy, err := c.config.Source.PlanFor(r, name, v.key.client.Locality, v.sees)
	return offer{service: name, plan: plan, policy: policy, home: c.config.Home}, err
}

// get returns a resource, and builds it if it is asked for the first time.
func (c *Cache) get(v *variant, r raftstore.Reader, key typedName) (*resource, error) {
	service, _, _ := serviceOf(key.of, key.name)
	if service == "" || key.name == Outbound {
		if known, ok := v.others[key]; ok {
			return known, nil
		}
		built, err := c.buildOther(v, r, key)
		if err == nil {
			v.others[key] = built
		}
		return built, err
	}
	s, err := c.service(v, r, service)
	if err != nil {
		return nil, err
	}
	if known, ok := s.resources[key]; ok {
		return known, nil
	}
	built, err := c.build(v, s, key)
	if err == nil {
		s.resources[key] = built
	}
	return built, err
}

// build writes a resource of a service.
func (c *Cache) build(v *variant, s *serviceState, key typedName) (*resource, error) {
	_, separator, domain := serviceOf(key.of, key.name)
	message, err := s.offer.render(v.key.client.Kind, key.of, key.name, separator, domain)
	if err != nil {
		return nil, err
	}
	c.metrics.builds.WithLabelValues(key.of.short()).Inc()
	return resourceOf(key, message)
}

func resourceOf(key typedName, message proto.Message) (*resource, error) {
	if message == nil {
		r := &resource{name: key.name, version: absentVersion, absent: true}
		if key.of == Routes {
			body, err := packed(noRoutes(key.name))
			if err != nil {
				return nil, err
			}
			r.body = body
		}
		return r, nil
	}
	body, err := packed(message)
	if err != nil {
		return nil, err
	}
	return &resource{name: key.name, version: versionOf(body), body: body}, nil
}

// buildOther writes a resource that belongs to no service.
func (c *Cache) buildOther(v *variant, r raftstore.Reader, key typedName) (*resource, error) {
	c.metrics.builds.WithLabelValues(key.of.short()).Inc()
	message, err := c.renderOther(v, r, key)
	if err != nil {
		return nil, err
	}
	return resourceOf(key, message)
}

func (c *Cache) renderOther(v *variant, r raftstore.Reader, key typedName) (proto.Message, error) {
	envoy := v.key.client.Kind == Envoy
	switch {
	case envoy && key == typedName{Listeners, Outbound}:
		return outboundListener()
	case envoy && key == typedName{Routes, Outbound}:
		services, err := c.visible(v, r, false)
		return outboundRoutes(services), err
	case envoy && key.of == Secrets:
		return c.renderSecret(v, r, key.name)
	case v.key.client.Kind == GRPC && key.of == Listeners:
		if text, ok := strings.CutPrefix(key.name, InboundPrefix); ok {
			if address, err := inboundAddress(text); err == nil {
				return inboundListener(address)
			}
		}
	}
	return nil, nil
}

func (c *Cache) renderSecret(v *variant, r raftstore.Reader, name string) (proto.Message, error) {
	all, err := c.config.Roots(r)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r trust.Roots) bool { return !v.sees(r.TrustDomain) })
	slices.SortFunc(all, func(a, b trust.Roots) int { return a.TrustDomain.Compare(b.TrustDomain) })
	if name == AllRoots {
		return allRoots(name, all)
	}
	for _, one := range all {
		if name == one.TrustDomain.IDString() || (name == OwnRoots && one.TrustDomain == c.config.Home) {
			return rootsOf(name, one), nil
		}
	}
	return nil, nil
}

// visible lists the services of which the variant sees anything; with lingering, also those that are just gone. One that was
// removed since the last flush is still there: the flush tells its routes first.
func (c *Cache) visible(v *variant, r raftstore.Reader, lingering bool) ([]string, error) {
	all, err := c.config.Source.Services(r)
	if err != nil {
		return nil, err
	}
	all = slices.AppendSeq(all, maps.Keys(v.services))
	slices.Sort(all)
	var out []string
	for _, name := range slices.Compact(all) {
		s, err := c.service(v, r, name)
		if err != nil {
			return nil, err
		}
		if s.offer.exists() || (lingering && c.config.Now().Before(s.lingers)) {
			out = append(out, name)
		}
	}
	return out, nil
}

// wanted are the resources of a type that a stream is to have: those that it asked for, whether they exist or not, and all
// that exist if it asked for all.
func (c *Cache) wanted(s *stream, r raftstore.Reader, t Type, names map[string]struct{}, wildcard bool) (map[string]*resource, error) {
	out := make(map[string]*resource, len(names))
	add := func(name string) error {
		got, err := c.get(s.variant, r, typedName{t, name})
		if err == nil {
			out[name] = got
		}
		return err
	}
	for name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	if !wildcard {
		return out, nil
	}
	all := []string{Outbound}
	if t == Clusters {
		var err error
		if all, err = c.visible(s.variant, r, true); err != nil {
			return nil, err
		}
	}
	for _, name := range all {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return out, nil
}
