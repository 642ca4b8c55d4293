package xds

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/ententehq/entente/internal/xdsupdate"
	"github.com/ententehq/entente/trust"
)

// allRoots returns the secret that verifies a certificate with the roots of its own domain only: domains are never
// merged. all is sorted.
func allRoots(name string, all []trust.Roots) (*tls.Secret, error) {
	config := &tls.SPIFFECertValidatorConfig{}
	for _, r := range all {
		config.TrustDomains = append(config.TrustDomains, &tls.SPIFFECertValidatorConfig_TrustDomain{
			Name: r.TrustDomain.Name(), TrustBundle: inline(r.Authorities),
		})
	}
	validator, err := xdsupdate.Packed(config)
	if err != nil {
		return nil, err
	}
	return validation(name, &tls.CertificateValidationContext{CustomValidatorConfig: &core.TypedExtensionConfig{
		Name: "envoy.tls.cert_validator.spiffe", TypedConfig: validator,
	}}), nil
}

// rootsOf returns the secret that verifies certificates of one domain.
func rootsOf(name string, r trust.Roots) *tls.Secret {
	return validation(name, &tls.CertificateValidationContext{TrustedCa: inline(r.Authorities)})
}

func validation(name string, context *tls.CertificateValidationContext) *tls.Secret {
	return &tls.Secret{Name: name, Type: &tls.Secret_ValidationContext{ValidationContext: context}}
}

func inline(certificates []*x509.Certificate) *core.DataSource {
	var text bytes.Buffer
	for _, c := range certificates {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // writes to a buffer do not fail
	}
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: text.Bytes()}}
}
