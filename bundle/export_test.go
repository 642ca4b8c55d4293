package bundle

import (
	"context"
	"crypto/tls"
	"encoding/json"
)

// PresentedBy is the certificate that the next handshake gets.
func PresentedBy(f *CertificateFiles) *tls.Certificate {
	cert, _ := f.certificate(context.Background(), "")
	return cert
}

// Split takes a JSON object apart, as documents are.
func Split(data []byte) (map[string]json.RawMessage, error) { return objectOf(data, "it") }
