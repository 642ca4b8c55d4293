package xds

import (
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/internal/xdsupdate"
	"github.com/ententehq/entente/routing/plan"
)

// Type is the URL of a type of resource.
type Type = xdsupdate.Type

// The types that are served.
const (
	Secrets   = xdsupdate.Secrets
	Clusters  = xdsupdate.Clusters
	Endpoints = xdsupdate.Endpoints
	Listeners = xdsupdate.Listeners
	Routes    = xdsupdate.Routes
)

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
