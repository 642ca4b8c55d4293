package xds

import (
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/routing/plan"
)

// Type is the URL of a type of resource.
type Type string

// The types that are served.
const (
	Secrets   Type = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	Clusters  Type = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	Endpoints Type = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	Listeners Type = "type.googleapis.com/envoy.config.listener.v3.Listener"
	Routes    Type = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// order is that in which a stream is sent what changed: what is referred to before what refers to it.
var order = [...]Type{Secrets, Clusters, Endpoints, Listeners, Routes}

// short is the name that metrics and logs use.
func (t Type) short() string {
	switch t {
	case Secrets:
		return "secrets"
	case Clusters:
		return "clusters"
	case Endpoints:
		return "endpoints"
	case Listeners:
		return "listeners"
	case Routes:
		return "routes"
	}
	return "other"
}

// whole says whether a state-of-the-world answer of the type holds everything that the client is to have, so that what is
// not in it is gone.
func (t Type) whole() bool { return t == Listeners || t == Clusters }

// Names of resources, and of what a bootstrap file has to hold.
const (
	// Outbound is the one listener, and the one route table, that Envoy gets for what its own service calls.
	Outbound = "entente-outbound"
	// InboundPrefix is before the address in the name of the listener that a gRPC server asks for.
	InboundPrefix = "entente/inbound/"
	// IdentityProvider is the certificate provider of a bootstrap file that holds the client's own SVID, and RootsProvider
	// the one that holds the roots of every domain.
	IdentityProvider = "entente-svid"
	RootsProvider    = "entente-bundles"
	// AllRoots is the secret that holds the roots of every domain, OwnRoots that of the home domain, and "spiffe://<domain>"
	// of one domain (the names that SPIRE gave them).
	AllRoots = "ALL"
	OwnRoots = "ROOTCA"
	// OwnCertificate is the secret that Envoy's own bootstrap file has to hold; private keys are never sent.
	OwnCertificate = "default"

	// inDomain and domainFirst are between a service and a trust domain in the names of clusters for GRPCSplit: the
	// instances of one domain, and those of all domains, this one first. Neither can stand in the name of a service.
	inDomain    = "@"
	domainFirst = "~"
)

// RootsProviderOf is the certificate provider of a bootstrap file that holds the roots of one trust domain.
func RootsProviderOf(td spiffeid.TrustDomain) string { return RootsProvider + "/" + td.Name() }

// serviceOf says to which service a resource belongs; "" to none. The domain is that of a cluster's name, if it has one.
func serviceOf(t Type, name string) (service, separator, domain string) {
	switch t {
	case Clusters, Endpoints:
		for _, separator := range []string{inDomain, domainFirst} {
			if service, domain, ok := strings.Cut(name, separator); ok {
				if plan.CheckServiceName(service) != nil || spiffeidName(domain) != nil {
					return "", "", ""
				}
				return service, separator, domain
			}
		}
	case Listeners, Routes:
	default:
		return "", "", ""
	}
	if plan.CheckServiceName(name) != nil {
		return "", "", ""
	}
	return name, "", ""
}

func spiffeidName(domain string) error {
	_, err := spiffeid.TrustDomainFromString(domain)
	return err
}
