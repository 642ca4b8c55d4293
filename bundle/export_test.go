package bundle

import (
	"context"
	"crypto/tls"
)

// PresentedBy is the certificate that the next handshake gets.
func PresentedBy(f *CertificateFiles) *tls.Certificate {
	cert, _ := f.certificate(context.Background(), "")
	return cert
}
