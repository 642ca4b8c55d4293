package upstream

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/svid"
)

// Check verifies what an upstream returned for the key: a signing certificate of td that chains to an anchor and lives
// for at least two SVID lifetimes.
func Check(
	td spiffeid.TrustDomain, key crypto.PublicKey, signed *Signed, now time.Time, longestSVID time.Duration,
) error {
	if len(signed.Chain) == 0 || len(signed.Anchors) == 0 {
		return fmt.Errorf("the upstream returned %d certificates and %d anchors; one of each is needed",
			len(signed.Chain), len(signed.Anchors))
	}
	ca := signed.Chain[0]
	want, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return fmt.Errorf("encode the public key: %w", err)
	}
	if !bytes.Equal(want, ca.RawSubjectPublicKeyInfo) {
		return fmt.Errorf("the upstream returned a certificate for another key")
	}
	if err := svid.LintCA(td)(ca); err != nil {
		return err
	}
	if left := ca.NotAfter.Sub(now); left < 2*longestSVID {
		return fmt.Errorf(
			"the upstream returned a certificate that lives for another %v; two SVID lifetimes (%v) are needed", left,
			2*longestSVID)
	}
	for _, anchor := range signed.Anchors {
		if !anchor.IsCA || anchor.CheckSignatureFrom(anchor) != nil {
			return fmt.Errorf(
				"the upstream returned %q as an anchor, which is not the self-signed certificate of a CA",
				anchor.Subject)
		}
	}
	intermediates := x509.NewCertPool()
	for _, c := range signed.Chain[1:] {
		intermediates.AddCert(c)
	}
	roots := x509.NewCertPool()
	roots.AddCert(signed.Anchors[0])
	at := now
	if ca.NotBefore.After(at) {
		at = ca.NotBefore
	}
	options := x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	if _, err := ca.Verify(options); err != nil {
		return fmt.Errorf("the upstream returned a certificate that does not chain to its anchor: %w", err)
	}
	return nil
}
