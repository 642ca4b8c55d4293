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

// tlsSocket is the name of the transport socket that both kinds of client know.
const tlsSocket = "envoy.transport_sockets.tls"

// nobodyPath is that of an ID below the part that only the server itself issues, and that it issues to nobody. It is
// expected where there is no instance: an empty list would let in any certificate of the roots.
const nobodyPath = "/entente/nobody"

// expected are the SPIFFE IDs of the endpoints of a plan that of picks (nil: of all), sorted, each once; never none.
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
		return []string{home.IDString() + nobodyPath}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// grpcTLS has a gRPC client present its SVID and expect one of the IDs below the roots of a certificate provider. gRPC reads
// the plain matchers only.
func grpcTLS(ids []string, roots string) (*core.TransportSocket, error) {
	matchers := make([]*matcher.StringMatcher, len(ids))
	for i, id := range ids {
		matchers[i] = exactly(id)
	}
	return transportSocket(&tls.UpstreamTlsContext{CommonTlsContext: &tls.CommonTlsContext{
		TlsCertificateProviderInstance: &tls.CertificateProviderPluginInstance{InstanceName: IdentityProvider},
		ValidationContextType: &tls.CommonTlsContext_ValidationContext{ValidationContext: &tls.CertificateValidationContext{
			CaCertificateProviderInstance: &tls.CertificateProviderPluginInstance{InstanceName: roots},
			MatchSubjectAltNames:          matchers, //nolint:staticcheck // SA1019: gRPC never reads the typed ones
		}},
	}})
}

// envoyTLS has Envoy present its own certificate and expect one of the IDs, each below the roots of its own domain.
func envoyTLS(ids []string) (*core.TransportSocket, error) {
	matchers := make([]*tls.SubjectAltNameMatcher, len(ids))
	for i, id := range ids {
		matchers[i] = &tls.SubjectAltNameMatcher{SanType: tls.SubjectAltNameMatcher_URI, Matcher: exactly(id)}
	}
	return transportSocket(&tls.UpstreamTlsContext{CommonTlsContext: &tls.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tls.SdsSecretConfig{{Name: OwnCertificate}},
		ValidationContextType: &tls.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tls.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         &tls.CertificateValidationContext{MatchTypedSubjectAltNames: matchers},
			ValidationContextSdsSecretConfig: &tls.SdsSecretConfig{Name: AllRoots, SdsConfig: overADS()},
		}},
	}})
}

// inboundTLS has a gRPC server present its SVID and ask its callers for one below the roots of any domain that this cluster
// trusts. Which of them may do what is the server's own decision.
func inboundTLS() (*core.TransportSocket, error) {
	return transportSocket(&tls.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tls.CommonTlsContext{
			TlsCertificateProviderInstance: &tls.CertificateProviderPluginInstance{InstanceName: IdentityProvider},
			ValidationContextType: &tls.CommonTlsContext_ValidationContext{ValidationContext: &tls.CertificateValidationContext{
				CaCertificateProviderInstance: &tls.CertificateProviderPluginInstance{InstanceName: RootsProvider},
			}},
		},
	})
}

func exactly(id string) *matcher.StringMatcher {
	return &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Exact{Exact: id}}
}

// overADS says that what is named comes over the same stream.
func overADS() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion:    core.ApiVersion_V3,
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	}
}
