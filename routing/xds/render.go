package xds

import (
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/internal/xdsupdate"
	"github.com/ententehq/entente/routing/plan"
)

// servicePlan is the plan of a service for the callers of a variant.
type servicePlan struct {
	service string
	plan    plan.Plan
	// policy is that of the plan.
	policy *plan.Policy
	home   spiffeid.TrustDomain
	// foreign has which domains of the plan this cluster does not host.
	foreign map[spiffeid.TrustDomain]bool
}

// exists reports whether the service has an instance that the callers may see.
func (p servicePlan) exists() bool {
	return len(p.plan.Priorities) > 0 || len(p.plan.Excluded) > 0
}

// answers reports whether a resource of a type is sent although no instance exists. gRPC waits 15 seconds for a
// listener, a route or a cluster that it asked for and that does not exist, so it is sent those of a service without
// instances, on which calls fail at once.
func (p servicePlan) answers(kind Kind, t Type) bool {
	return t == Endpoints || (kind != Envoy && plan.CheckServiceName(p.service) == nil)
}

// render returns a resource of the service, or nil if it does not exist. separator and domain are those of [serviceOf].
func (p servicePlan) render(client Client, t Type, name, separator, domain string) (proto.Message, error) {
	kind := client.Kind
	if !p.exists() && !p.answers(kind, t) {
		return nil, nil
	}
	switch t {
	case Listeners:
		return serviceListener(p.service)
	case Routes:
		if kind == GRPCSplit {
			return serviceRoutes(p.service, p.splitRoutes()), nil
		}
		return serviceRoutes(p.service, []weightedCluster{{p.service, 1}}), nil
	case Clusters:
		if kind == GRPCSplit {
			return p.splitCluster(name, separator, domain)
		}
		return p.cluster(client)
	case Endpoints:
		return p.endpoints(kind, name, separator, domain)
	}
	return nil, nil
}

func (p servicePlan) cluster(client Client) (proto.Message, error) {
	ids := expected(p.plan, p.home, nil)
	if client.Kind == Envoy {
		socket, err := envoyTLS(ids, client.CertificateOverADS)
		if err != nil {
			return nil, err
		}
		return envoyCluster(p.service, socket, p.policy.PanicThreshold())
	}
	socket, err := grpcTLS(ids, RootsProvider)
	if err != nil {
		return nil, err
	}
	return endpointCluster(p.service, socket), nil
}

func (p servicePlan) endpoints(kind Kind, name, separator, domain string) (proto.Message, error) {
	var a *endpoint.ClusterLoadAssignment
	switch {
	case kind == Envoy:
		a = assignment(name, unspilled(p.plan), p.announced(forEnvoy))
		a.Policy = &endpoint.ClusterLoadAssignment_Policy{OverprovisioningFactor: percent(p.policy.Overprovisioning())}
	case separator == inDomain:
		a = assignment(name, spill(p.plan, inTrustDomain(domain)), p.announced(forGRPC))
	default:
		a = assignment(name, spill(p.plan, nil), p.announced(forGRPC))
	}
	return a, checkAssignment(a)
}

// announced returns how endpoints are announced: with a health, and marked if they are in a foreign domain.
func (p servicePlan) announced(health func(plan.Endpoint) core.HealthStatus) func(plan.Endpoint, *endpoint.LbEndpoint) {
	return func(e plan.Endpoint, to *endpoint.LbEndpoint) {
		to.HealthStatus = health(e)
		if td := e.ID.TrustDomain(); p.foreign[td] {
			to.Metadata = xdsupdate.ForeignMetadata(td.Name())
		}
	}
}

// splitRoutes gives each domain its share of the requests. If the instances of a domain are gone, the others are used.
func (p servicePlan) splitRoutes() []weightedCluster {
	var out []weightedCluster
	for _, d := range domains(p.plan) {
		if d.load > 0 {
			out = append(out, weightedCluster{p.service + domainFirst + d.domain.Name(), d.load})
		}
	}
	if len(out) == 0 {
		return []weightedCluster{{p.service, 1}}
	}
	return out
}

// splitCluster returns the cluster of one domain, or the one that tries the clusters of all domains, or, by the name of
// the service alone, one without instances for when there is no domain.
func (p servicePlan) splitCluster(name, separator, domain string) (proto.Message, error) {
	switch separator {
	case inDomain:
		td, err := spiffeid.TrustDomainFromString(domain)
		if err != nil {
			return nil, nil //nolint:nilerr // there is no such cluster
		}
		socket, err := grpcTLS(expected(p.plan, p.home, inTrustDomain(domain)), RootsProviderOf(td))
		if err != nil {
			return nil, err
		}
		return endpointCluster(name, socket), nil
	case domainFirst:
		children := []string{p.service + inDomain + domain}
		for _, d := range domains(p.plan) {
			if d.domain.Name() != domain {
				children = append(children, p.service+inDomain+d.domain.Name())
			}
		}
		return aggregateCluster(name, children)
	}
	socket, err := grpcTLS(expected(plan.Plan{}, p.home, nil), RootsProviderOf(p.home))
	if err != nil {
		return nil, err
	}
	return endpointCluster(name, socket), nil
}

func inTrustDomain(name string) func(plan.Endpoint) bool {
	return func(e plan.Endpoint) bool { return e.ID.TrustDomain().Name() == name }
}
