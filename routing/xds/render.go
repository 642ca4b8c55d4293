package xds

import (
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/routing/plan"
)

// offer is what callers of one kind, in one place and with one set of rights, are offered of a service.
type offer struct {
	service string
	plan    plan.Plan
	// policy is the one that the plan was made by.
	policy *plan.Policy
	home   spiffeid.TrustDomain
}

// exists says whether there is anything of the service that such callers may see.
func (o offer) exists() bool {
	return len(o.plan.Priorities) > 0 || len(o.plan.Excluded) > 0
}

// render writes a resource of the service; nil: there is no such resource. separator and domain come from [serviceOf].
func (o offer) render(kind Kind, t Type, name, separator, domain string) (proto.Message, error) {
	if !o.exists() && t != Endpoints {
		return nil, nil
	}
	switch t {
	case Listeners:
		return serviceListener(o.service)
	case Routes:
		if kind == GRPCSplit {
			return serviceRoutes(o.service, o.splitRoutes()), nil
		}
		return serviceRoutes(o.service, []weightedCluster{{o.service, 1}}), nil
	case Clusters:
		if kind == GRPCSplit {
			return o.splitCluster(name, separator, domain)
		}
		return o.cluster(kind)
	case Endpoints:
		return o.endpoints(kind, name, separator, domain)
	}
	return nil, nil
}

func (o offer) cluster(kind Kind) (proto.Message, error) {
	ids := expected(o.plan, o.home, nil)
	if kind == Envoy {
		socket, err := envoyTLS(ids)
		if err != nil {
			return nil, err
		}
		return envoyCluster(o.service, socket, o.policy.PanicThreshold())
	}
	socket, err := grpcTLS(ids, RootsProvider)
	if err != nil {
		return nil, err
	}
	return endpointCluster(o.service, socket), nil
}

func (o offer) endpoints(kind Kind, name, separator, domain string) (proto.Message, error) {
	var a *endpoint.ClusterLoadAssignment
	switch {
	case kind == Envoy:
		a = assignment(name, unspilled(o.plan), forEnvoy)
		a.Policy = &endpoint.ClusterLoadAssignment_Policy{OverprovisioningFactor: percent(o.policy.Overprovisioning())}
	case separator == inDomain:
		a = assignment(name, spill(o.plan, inTrustDomain(domain)), forGRPC)
	default:
		a = assignment(name, spill(o.plan, nil), forGRPC)
	}
	return a, checkAssignment(a)
}

// splitRoutes sends to each domain its part of the requests that go out now; a domain that is gone falls back on the others.
func (o offer) splitRoutes() []weightedCluster {
	var out []weightedCluster
	for _, d := range domains(o.plan) {
		if d.load > 0 {
			out = append(out, weightedCluster{o.service + domainFirst + d.domain.Name(), d.load})
		}
	}
	if len(out) == 0 {
		return []weightedCluster{{o.service, 1}}
	}
	return out
}

// splitCluster writes the cluster of one domain, or the one that goes through the clusters of all domains, or, by the bare
// name of the service, one without instances for when there is no domain to go to.
func (o offer) splitCluster(name, separator, domain string) (proto.Message, error) {
	switch separator {
	case inDomain:
		td, err := spiffeid.TrustDomainFromString(domain)
		if err != nil {
			return nil, nil //nolint:nilerr // there is no such cluster
		}
		socket, err := grpcTLS(expected(o.plan, o.home, inTrustDomain(domain)), RootsProviderOf(td))
		if err != nil {
			return nil, err
		}
		return endpointCluster(name, socket), nil
	case domainFirst:
		children := []string{o.service + inDomain + domain}
		for _, d := range domains(o.plan) {
			if d.domain.Name() != domain {
				children = append(children, o.service+inDomain+d.domain.Name())
			}
		}
		return aggregateCluster(name, children)
	}
	socket, err := grpcTLS(expected(plan.Plan{}, o.home, nil), RootsProviderOf(o.home))
	if err != nil {
		return nil, err
	}
	return endpointCluster(name, socket), nil
}

func inTrustDomain(name string) func(plan.Endpoint) bool {
	return func(e plan.Endpoint) bool { return e.ID.TrustDomain().Name() == name }
}
