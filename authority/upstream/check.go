package upstream

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/svid"
	verifier "github.com/ententehq/entente/bundle/svid"
)

// Candidate is what an upstream returned, before anything is signed with it.
type Candidate struct {
	TrustDomain spiffeid.TrustDomain
	// Key is the key that the CA certificate was requested for.
	Key    crypto.Signer
	Signed *Signed
	Now    time.Time
	// LongestSVID is the longest lifetime of an X509-SVID of the domain.
	LongestSVID time.Duration
	Sample      Sample
}

// Check verifies what an upstream returned for a key, and returns when the first certificate of its chain ends: it is a
// signing certificate of the trust domain that chains to an anchor, lives for at least two SVID lifetimes, and signs
// X509-SVIDs that every verifier accepts. The last is proved with a sample, which is discarded; [ErrUnusable] is
// wrapped if it is refused.
func Check(c Candidate) (until time.Time, err error) {
	signed := c.Signed
	if len(signed.Chain) == 0 || len(signed.Anchors) == 0 {
		return until, fmt.Errorf("the upstream returned %d certificates and %d anchors; one of each is needed",
			len(signed.Chain), len(signed.Anchors))
	}
	ca := signed.Chain[0]
	want, err := x509.MarshalPKIXPublicKey(c.Key.Public())
	if err != nil {
		return until, fmt.Errorf("encode the public key: %w", err)
	}
	if !bytes.Equal(want, ca.RawSubjectPublicKeyInfo) {
		return until, fmt.Errorf("the upstream returned a certificate for another key")
	}
	if err := svid.LintCA(c.TrustDomain)(ca); err != nil {
		return until, err
	}
	for _, anchor := range signed.Anchors {
		if !anchor.IsCA || anchor.CheckSignatureFrom(anchor) != nil {
			return until, fmt.Errorf(
				"the upstream returned %q as an anchor, which is not the self-signed certificate of a CA",
				anchor.Subject)
		}
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(signed.Anchors[0])
	for _, cert := range signed.Chain[1:] {
		between.AddCert(cert)
	}
	at := c.Now
	if ca.NotBefore.After(at) {
		at = ca.NotBefore
	}
	_, err = ca.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		return until, fmt.Errorf("the upstream returned a certificate that does not chain to its anchor: %w", err)
	}
	if err := prove(c); err != nil { // it names the certificate and the extension, which x509.Verify does not
		return until, err
	}
	path := append(slices.Clone(signed.Chain), signed.Anchors[0])
	until = verifier.PathEnd(path)
	if left := until.Sub(c.Now); left < 2*c.LongestSVID {
		first := slices.MinFunc(path, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		return until, fmt.Errorf(
			"the upstream returned a certificate that lives for another %v, since %q ends at %s; two SVID lifetimes "+
				"(%v) are needed", left.Round(time.Second), first.Subject,
			until.UTC().Format(time.RFC3339), 2*c.LongestSVID)
	}
	return until, nil
}
