package xds

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/internal/xdsupdate"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/trust"
)

type typedName struct {
	of   Type
	name string
}

// builder is what resources are built from.
type builder struct {
	config    Config
	metrics   *metrics
	returning returning
	// again plans a service again after a while.
	again func(service string, after time.Duration)
}

// unsendable records that an update cannot be sent.
func (b *builder) unsendable(t Type, err error) {
	b.metrics.unsendable.WithLabelValues(t.Short()).Inc()
	b.config.Logger.Error("an update cannot be sent; clients keep what they have", "type", t.Short(), "error", err)
}

// variantKey is what all streams of a variant have in common. scope is the key of their scope.
type variantKey struct {
	client Client
	scope  string
}

// variant holds the resources for streams of one kind, one locality and one set of rights. The cache's lock guards it.
type variant struct {
	*builder
	key  variantKey
	sees func(spiffeid.TrustDomain) bool

	services map[string]*serviceState
	// others are the resources that belong to no service.
	others map[typedName]*xdsupdate.Resource
	// subscribers has the streams that subscribe to a resource by name, wildcards those that subscribe to a whole type.
	subscribers map[typedName]map[*stream]bool
	wildcards   map[Type]map[*stream]bool
	streams     int
}

// serviceState is what was built of a service.
type serviceState struct {
	plan      servicePlan
	resources map[typedName]*xdsupdate.Resource
	// lingers is until when the clusters of a removed service are kept, so that what refers to them is removed first.
	lingers time.Time
}

func newVariant(b *builder, key variantKey, sees func(spiffeid.TrustDomain) bool) *variant {
	return &variant{
		builder: b, key: key, sees: sees, services: map[string]*serviceState{},
		others:      map[typedName]*xdsupdate.Resource{},
		subscribers: map[typedName]map[*stream]bool{}, wildcards: map[Type]map[*stream]bool{},
	}
}

// service returns the state of a service, which is planned if it is not known.
func (v *variant) service(r raftstore.Reader, name string) (*serviceState, error) {
	if s, ok := v.services[name]; ok {
		return s, nil
	}
	p, err := v.planService(r, name)
	if err != nil {
		return nil, err
	}
	s := &serviceState{plan: p, resources: map[typedName]*xdsupdate.Resource{}}
	v.services[name] = s
	return s, nil
}

// planService plans a service. gRPC reads roots from files, a moment after they are out, and would refuse the instances
// of a domain that came back until then: it is planned without them first. Envoy gets the roots before them, on the
// same stream.
func (v *variant) planService(r raftstore.Reader, name string) (servicePlan, error) {
	planned, policy, err := v.config.Source.PlanFor(r, name, v.key.client.Locality, v.sees)
	if now := v.config.Now(); err == nil && v.returning.observe(planned, now) && v.key.client.Kind != Envoy {
		v.again(name, rootsLead)
		planned, policy, err = v.config.Source.PlanFor(r, name, v.key.client.Locality,
			func(td spiffeid.TrustDomain) bool { return v.sees(td) && v.returning.due(td, now) })
	}
	p := servicePlan{service: name, plan: planned, policy: policy, home: v.config.Home}
	if err == nil {
		p.foreign, err = v.foreign(r, planned)
	}
	return p, err
}

// foreign returns the domains of a plan that this cluster does not host.
func (b *builder) foreign(r raftstore.Reader, p plan.Plan) (map[spiffeid.TrustDomain]bool, error) {
	foreign := map[spiffeid.TrustDomain]bool{}
	for _, priority := range p.Priorities {
		for _, l := range priority.Localities {
			for _, e := range l.Endpoints {
				td := e.ID.TrustDomain()
				if _, known := foreign[td]; known {
					continue
				}
				hosted, err := b.config.Hosts(r, td)
				if err != nil {
					return nil, err
				}
				foreign[td] = !hosted
			}
		}
	}
	return foreign, nil
}

// get returns a resource, which is built if it is not known.
func (v *variant) get(r raftstore.Reader, key typedName) (*xdsupdate.Resource, error) {
	service, _, _ := serviceOf(key.of, key.name)
	if service == "" || key.name == Outbound {
		if known, ok := v.others[key]; ok {
			return known, nil
		}
		built, err := v.buildOther(r, key)
		if err == nil {
			v.others[key] = built
		}
		return built, err
	}
	s, err := v.service(r, service)
	if err != nil {
		return nil, err
	}
	if known, ok := s.resources[key]; ok {
		return known, nil
	}
	built, err := v.build(s, key)
	if err == nil {
		s.resources[key] = built
	}
	return built, err
}

// build builds a resource of a service.
func (v *variant) build(s *serviceState, key typedName) (*xdsupdate.Resource, error) {
	_, separator, domain := serviceOf(key.of, key.name)
	message, err := s.plan.render(v.key.client, key.of, key.name, separator, domain)
	if err != nil {
		return nil, err
	}
	v.metrics.builds.WithLabelValues(key.of.Short()).Inc()
	return resourceOf(key, message)
}

func resourceOf(key typedName, message proto.Message) (*xdsupdate.Resource, error) {
	if message == nil {
		return xdsupdate.Missing(key.of, key.name)
	}
	return xdsupdate.Present(key.name, message)
}

// buildOther builds a resource that belongs to no service.
func (v *variant) buildOther(r raftstore.Reader, key typedName) (*xdsupdate.Resource, error) {
	v.metrics.builds.WithLabelValues(key.of.Short()).Inc()
	message, err := v.renderOther(r, key)
	if err != nil {
		return nil, err
	}
	return resourceOf(key, message)
}

func (v *variant) renderOther(r raftstore.Reader, key typedName) (proto.Message, error) {
	envoy := v.key.client.Kind == Envoy
	switch {
	case envoy && key == typedName{Listeners, Outbound}:
		return outboundListener(v.key.client.Outbound)
	case envoy && key == typedName{Routes, Outbound}:
		services, err := v.visible(r, false)
		return outboundRoutes(services), err
	case envoy && key.of == Secrets:
		return v.renderSecret(r, key.name)
	case v.key.client.Kind == GRPC && key.of == Listeners:
		if text, ok := strings.CutPrefix(key.name, InboundPrefix); ok {
			if address, err := inboundAddress(text); err == nil {
				return inboundListener(address)
			}
		}
	}
	return nil, nil
}

func (v *variant) renderSecret(r raftstore.Reader, name string) (proto.Message, error) {
	all, err := v.config.Roots(r)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(r trust.Roots) bool { return !v.sees(r.TrustDomain) })
	slices.SortFunc(all, func(a, b trust.Roots) int { return a.TrustDomain.Compare(b.TrustDomain) })
	if name == AllRoots {
		return allRoots(name, all)
	}
	for _, one := range all {
		if name == one.TrustDomain.IDString() || (name == OwnRoots && one.TrustDomain == v.config.Home) {
			return rootsOf(name, one), nil
		}
	}
	return nil, nil
}

// visible returns the services of which the variant sees an instance, and with lingering also those that were just
// removed. A service that was removed since the last flush is still visible, because the flush removes its routes
// first.
func (v *variant) visible(r raftstore.Reader, lingering bool) ([]string, error) {
	all, err := v.config.Source.Services(r)
	if err != nil {
		return nil, err
	}
	all = slices.AppendSeq(all, maps.Keys(v.services))
	slices.Sort(all)
	var names []string
	for _, name := range slices.Compact(all) {
		s, err := v.service(r, name)
		if err != nil {
			return nil, err
		}
		if s.plan.exists() || (lingering && v.config.Now().Before(s.lingers)) {
			names = append(names, name)
		}
	}
	return names, nil
}

// wanted returns the resources of a type that a subscription includes: those that it names, whether they exist or not,
// and for a wildcard all that exist.
func (v *variant) wanted(r raftstore.Reader, t Type, sub *subscription) (map[string]*xdsupdate.Resource, error) {
	wanted := make(map[string]*xdsupdate.Resource, len(sub.names))
	add := func(name string) (err error) {
		wanted[name], err = v.get(r, typedName{t, name})
		return err
	}
	for name := range sub.names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	if !sub.wildcard {
		return wanted, nil
	}
	all := []string{Outbound}
	if t == Clusters {
		var err error
		if all, err = v.visible(r, true); err != nil {
			return nil, err
		}
	}
	for _, name := range all {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return wanted, nil
}

// subscribe replaces what a stream subscribes to of a type.
func (v *variant) subscribe(s *stream, t Type, names map[string]struct{}, wildcard bool) {
	sub := s.subscriptions[t]
	for name := range sub.names {
		if _, still := names[name]; !still {
			v.drop(s, typedName{t, name})
		}
	}
	for name := range names {
		key := typedName{t, name}
		if v.subscribers[key] == nil {
			v.subscribers[key] = map[*stream]bool{}
		}
		v.subscribers[key][s] = true
	}
	switch {
	case wildcard && v.wildcards[t] == nil:
		v.wildcards[t] = map[*stream]bool{s: true}
	case wildcard:
		v.wildcards[t][s] = true
	default:
		delete(v.wildcards[t], s)
	}
	sub.names, sub.wildcard = maps.Clone(names), wildcard
}

// unsubscribe ends everything that a stream subscribes to of a type.
func (v *variant) unsubscribe(s *stream, t Type) {
	for name := range s.subscriptions[t].names {
		v.drop(s, typedName{t, name})
	}
	delete(v.wildcards[t], s)
	if len(v.wildcards[t]) == 0 {
		delete(v.wildcards, t)
	}
}

// drop ends a stream's subscription to a resource. A resource without subscribers is deleted.
func (v *variant) drop(s *stream, key typedName) {
	delete(v.subscribers[key], s)
	if len(v.subscribers[key]) > 0 {
		return
	}
	delete(v.subscribers, key)
	if len(v.wildcards) > 0 {
		return // streams with a wildcard need all resources
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
