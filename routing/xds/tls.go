package xds

import (
	"slices"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/routing/plan"
)

// tlsSocket is the name of the transport socket, for both kinds of client.
const tlsSocket = "envoy.transport_sockets.tls"

// unissuedPath is the path of an ID in the part that is reserved for members, which is never issued. It is expected if
// there is no instance: an empty list would accept every certificate of the roots.
const unissuedPath = "/entente/unissued"

// expected returns the sorted SPIFFE IDs of the endpoints that of selects, or of all if of is nil. It never returns an
// empty list.
func expected(planned plan.Plan, home spiffeid.TrustDomain, of func(plan.Endpoint) bool) []string {
	var ids []string
	for _, p := range planned.Priorities {
		for _, l := range p.Localities {
			for _, e := range l.Endpoints {
				if of == nil || of(e) {
					ids = append(ids, e.ID.String())
				}
			}
		}
	}
	if len(ids) == 0 {
		return []string{home.IDString() + unissuedPath}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// grpcTLS makes a gRPC client present its SVID and expect one of the IDs, verified with the roots of a certificate
// provider. gRPC reads only the untyped matchers.
func grpcTLS(ids []string, roots string) (*core.TransportSocket, error) {
	matchers := make([]*matcher.StringMatcher, len(ids))
	for i, id := range ids {
		matchers[i] = exactly(id)
	}
	return transportSocket(&tls.UpstreamTlsContext{CommonTlsContext: &tls.CommonTlsContext{
		TlsCertificateProviderInstance: &tls.CertificateProviderPluginInstance{InstanceName: IdentityProvider},
		ValidationContextType: &tls.CommonTlsContext_ValidationContext{
			ValidationContext: &tls.CertificateValidationContext{
				CaCertificateProviderInstance: &tls.CertificateProviderPluginInstance{InstanceName: roots},
				MatchSubjectAltNames:          matchers, //nolint:staticcheck // gRPC does not read typed ones
			},
		},
	}})
}

// envoyTLS makes Envoy present its own certificate and expect one of the IDs, each verified with the roots of its own
// domain. Its own certificate is in its bootstrap file, or on the stream.
func envoyTLS(ids []string, certificateOverADS bool) (*core.TransportSocket, error) {
	matchers := make([]*tls.SubjectAltNameMatcher, len(ids))
	for i, id := range ids {
		matchers[i] = &tls.SubjectAltNameMatcher{SanType: tls.SubjectAltNameMatcher_URI, Matcher: exactly(id)}
	}
	certificate := &tls.SdsSecretConfig{Name: OwnCertificate}
	if certificateOverADS {
		certificate.SdsConfig = overADS()
	}
	return transportSocket(&tls.UpstreamTlsContext{CommonTlsContext: &tls.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tls.SdsSecretConfig{certificate},
		ValidationContextType: &tls.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tls.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: &tls.CertificateValidationContext{
					MatchTypedSubjectAltNames: matchers,
				},
				ValidationContextSdsSecretConfig: &tls.SdsSecretConfig{Name: AllRoots, SdsConfig: overADS()},
			},
		},
	}})
}

// inboundTLS makes a gRPC server present its SVID and require one of its callers, verified with the roots of any domain
// that this cluster trusts. Authorizing the callers is up to the server.
func inboundTLS() (*core.TransportSocket, error) {
	return transportSocket(&tls.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tls.CommonTlsContext{
			TlsCertificateProviderInstance: &tls.CertificateProviderPluginInstance{InstanceName: IdentityProvider},
			ValidationContextType: &tls.CommonTlsContext_ValidationContext{
				ValidationContext: &tls.CertificateValidationContext{
					CaCertificateProviderInstance: &tls.CertificateProviderPluginInstance{InstanceName: RootsProvider},
				},
			},
		},
	})
}

func exactly(id string) *matcher.StringMatcher {
	return &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Exact{Exact: id}}
}

// overADS refers to a resource of the same stream.
func overADS() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion:    core.ApiVersion_V3,
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	}
}
