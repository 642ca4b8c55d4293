// Package sds serves Envoy's Secret Discovery Service (SDS v3) from the identities of a workload.
//
// The names are those of SPIRE's agent: "default" or a SPIFFE ID is a certificate with its key; "ROOTCA" is the
// validation context of the trust domain of the default identity, "spiffe://domain" that of one domain, and "ALL" that
// of every one that the workload has a bundle of. Validation contexts have Envoy's SPIFFE certificate validator, which
// verifies each certificate by the bundle of its own trust domain. A request without names is for everything.
//
// The caller is attested as one of the Workload API is; no security header is needed. Both the state of the world and
// differences are served ([discovery.Whole], [discovery.Delta]).
package sds

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ententehq/entente/agent/cache"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// Names are the names of resources that do not follow from SPIFFE IDs.
type Names struct {
	// Default is the certificate of the default identity, Bundle the validation context of its trust domain, and All
	// that of all trust domains.
	Default, Bundle, All string
}

// DefaultNames are those of SPIRE's agent.
var DefaultNames = Names{Default: "default", Bundle: "ROOTCA", All: "ALL"}

// Resources returns the secrets of a state by name: those with some names, and all if wildcard is set. What the
// workload does not have is absent.
func (n Names) Resources(
	state cache.State, names []string, wildcard bool,
) (map[string]*xdsupdate.Resource, error) {
	if wildcard {
		names = slices.Concat(names, []string{n.Default, n.Bundle, n.All}, ids(state),
			slices.Sorted(maps.Keys(domains(state))))
	}
	out := map[string]*xdsupdate.Resource{}
	for _, name := range names {
		if out[name] != nil {
			continue
		}
		secret, err := n.secret(state, name)
		if err != nil {
			return nil, err
		}
		if secret == nil {
			out[name], err = xdsupdate.Missing(xdsupdate.Secrets, name)
		} else {
			out[name], err = xdsupdate.Present(name, secret)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func ids(state cache.State) (ids []string) {
	for _, i := range state.Identities {
		ids = append(ids, i.SVID.ID.String())
	}
	return ids
}

// domains returns the bundles by the IDs of their trust domains.
func domains(state cache.State) map[string]*bundle.Bundle {
	out := map[string]*bundle.Bundle{}
	for _, b := range state.Bundles {
		out[b.TrustDomain().IDString()] = b
	}
	return out
}

// secret returns the secret with a name, or nil.
func (n Names) secret(state cache.State, name string) (*tls.Secret, error) {
	var first *bundle.Bundle
	if len(state.Identities) > 0 {
		first = state.Bundles[state.Identities[0].SVID.ID.TrustDomain().Name()]
	}
	switch {
	case name == n.Default && len(state.Identities) > 0:
		return certificate(name, state.Identities[0])
	case name == n.Bundle && first != nil:
		return validation(name, first)
	case name == n.All:
		return validation(name, slices.Collect(maps.Values(state.Bundles))...)
	}
	if b := domains(state)[name]; b != nil {
		return validation(name, b)
	}
	for _, i := range state.Identities {
		if i.SVID.ID.String() == name {
			return certificate(name, i)
		}
	}
	return nil, nil
}

func certificate(name string, i cache.Identity) (*tls.Secret, error) {
	key, err := x509.MarshalPKCS8PrivateKey(i.SVID.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("encode the key of %s: %w", i.SVID.ID, err)
	}
	return &tls.Secret{Name: name, Type: &tls.Secret_TlsCertificate{TlsCertificate: &tls.TlsCertificate{
		CertificateChain: inline(certificatesPEM(i.SVID.Certificates)),
		PrivateKey:       inline(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	}}}, nil
}

// validation returns a validation context with the SPIFFE certificate validator. Envoy refuses one without trust
// domains, and a trust domain without certificates, of which nothing is trusted.
func validation(name string, bundles ...*bundle.Bundle) (*tls.Secret, error) {
	slices.SortFunc(bundles, func(a, b *bundle.Bundle) int {
		return strings.Compare(a.TrustDomain().Name(), b.TrustDomain().Name())
	})
	config := &tls.SPIFFECertValidatorConfig{}
	for _, b := range bundles {
		if roots := certificatesPEM(b.X509Authorities()); len(roots) > 0 {
			config.TrustDomains = append(config.TrustDomains, &tls.SPIFFECertValidatorConfig_TrustDomain{
				Name: b.TrustDomain().Name(), TrustBundle: inline(roots),
			})
		}
	}
	if len(config.GetTrustDomains()) == 0 {
		return nil, nil
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encode the validation context %s: %w", name, err)
	}
	context := &tls.CertificateValidationContext{CustomValidatorConfig: &core.TypedExtensionConfig{
		Name: "envoy.tls.cert_validator.spiffe",
		TypedConfig: &anypb.Any{
			TypeUrl: "type.googleapis.com/" + string(config.ProtoReflect().Descriptor().FullName()), Value: raw,
		},
	}}
	return &tls.Secret{Name: name, Type: &tls.Secret_ValidationContext{ValidationContext: context}}, nil
}

func inline(b []byte) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: b}}
}

func certificatesPEM(certificates []*x509.Certificate) (out []byte) {
	for _, c := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}
