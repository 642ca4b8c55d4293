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

// order is the order in which a stream is sent changes: a resource is sent before those that refer to it.
var order = [...]Type{Secrets, Clusters, Endpoints, Listeners, Routes}

// short returns the name that metrics and logs use.
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

// whole reports whether a state-of-the-world response of the type contains everything that the client is to have, so
// that a resource which is not in it is deleted.
func (t Type) whole() bool { return t == Listeners || t == Clusters }

// Names of resources, and of what a bootstrap file must contain.
const (
	// Outbound is the only listener, and the only route table, of Envoy, for outbound requests of its own service.
	Outbound = "entente-outbound"
	// InboundPrefix precedes the address in the name of the listener that a gRPC server requests.
	InboundPrefix = "entente/inbound/"
	// IdentityProvider is the certificate provider of a bootstrap file for the client's own SVID, RootsProvider the one
	// for the roots of every domain.
	IdentityProvider = "entente-svid"
	RootsProvider    = "entente-bundles"
	// AllRoots is the secret with the roots of every domain, OwnRoots that of the home domain, and "spiffe://<domain>"
	// that of one domain, as in SPIRE.
	AllRoots = "ALL"
	OwnRoots = "ROOTCA"
	// OwnCertificate is the secret that Envoy's own bootstrap file must define; private keys are never sent.
	OwnCertificate = "default"

	// inDomain and domainFirst separate a service and a trust domain in the names of clusters for GRPCSplit: the
	// instances of one domain, and those of all domains with this one first. Neither occurs in the name of a service.
	inDomain    = "@"
	domainFirst = "~"
)

// RootsProviderOf returns the certificate provider of a bootstrap file for the roots of one trust domain.
func RootsProviderOf(td spiffeid.TrustDomain) string { return RootsProvider + "/" + td.Name() }

// serviceOf returns the service that a resource belongs to, or "". The domain is that in the name of a cluster, if any.
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
