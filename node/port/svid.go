package port

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Trust says which X.509 authorities speak for a trust domain. It is asked during handshakes and
// rechecks, from many goroutines, and must not block.
type Trust interface {
	// X509Authorities returns the authorities of a hosted domain, or of a foreign one whose relationship
	// is active and whose bundle has not expired. For any other domain it returns an error that says why
	// its callers are not trusted. The caller does not change the slice.
	X509Authorities(td spiffeid.TrustDomain) ([]*x509.Certificate, error)
}

// maxChain bounds the certificates that a caller may present. Real chains have two to four.
const maxChain = 8

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 15}
	emptySequence     = []byte{0x30, 0x00}
)

// VerifySVID verifies the certificates that a caller presented, the leaf first, as an X509-SVID: the rules
// of the X509-SVID standard on the leaf and on each signing certificate, and a path by RFC 5280 to an
// authority of the leaf's own trust domain. It returns the SPIFFE ID, and until when it holds: the moment
// at which the last path to an authority ends. Every error is a [Refusal].
func VerifySVID(certificates []*x509.Certificate, trust Trust, now time.Time) (spiffeid.ID, time.Time, error) {
	var none spiffeid.ID
	switch {
	case len(certificates) == 0:
		return none, time.Time{}, refuse(ReasonNoCertificate, "the caller presents no certificate; present an X509-SVID")
	case len(certificates) > maxChain:
		return none, time.Time{}, refuse(ReasonMalformedSVID, fmt.Sprintf("the caller presents %d certificates; at most %d are read", len(certificates), maxChain))
	}
	leaf := certificates[0]
	id, err := leafID(leaf)
	if err != nil {
		return none, time.Time{}, refuse(ReasonMalformedSVID, "the caller's certificate is no X509-SVID: "+err.Error())
	}
	if now.After(leaf.NotAfter) {
		return none, time.Time{}, refuse(ReasonExpiredSVID, fmt.Sprintf("the X509-SVID of %s expired at %s; present a renewed one", id, leaf.NotAfter.UTC().Format(time.RFC3339)))
	}
	authorities, err := trust.X509Authorities(id.TrustDomain())
	if err != nil {
		return none, time.Time{}, refuse(ReasonUntrustedDomain, fmt.Sprintf("callers of trust domain %s are not trusted here: %v", id.TrustDomain(), err))
	}
	roots := x509.NewCertPool()
	for _, a := range authorities {
		roots.AddCert(a)
	}
	intermediates := x509.NewCertPool()
	for _, c := range certificates[1:] {
		intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return none, time.Time{}, refuse(ReasonUnverifiedSVID, fmt.Sprintf("the X509-SVID of %s does not verify against the bundle of %s (%d X.509 authorities): %v", id, id.TrustDomain(), len(authorities), err))
	}
	var until time.Time
	var broken error
	for _, chain := range chains {
		if err := signingRules(chain); err != nil {
			broken = err
			continue
		}
		if end := endOf(chain); end.After(until) {
			until = end
		}
	}
	if until.IsZero() {
		return none, time.Time{}, refuse(ReasonUnverifiedSVID, fmt.Sprintf("the X509-SVID of %s is signed by a certificate that may not: %v", id, broken))
	}
	return id, until, nil
}

// leafID checks what the X509-SVID standard asks of a leaf, and returns its SPIFFE ID.
func leafID(leaf *x509.Certificate) (spiffeid.ID, error) {
	var none spiffeid.ID
	if len(leaf.URIs) != 1 {
		return none, fmt.Errorf("it has %d URI names, not exactly one", len(leaf.URIs))
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return none, fmt.Errorf("its URI name is no SPIFFE ID: %w", err)
	}
	if id.Path() == "" {
		return none, fmt.Errorf("its SPIFFE ID %s has no path", id)
	}
	critical, present := extension(leaf, oidKeyUsage)
	switch {
	case leaf.IsCA:
		return none, fmt.Errorf("%s is a certificate authority", id)
	case !present || !critical:
		return none, fmt.Errorf("the key usage of %s is not present and critical", id)
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return none, fmt.Errorf("the key usage of %s lacks digitalSignature", id)
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return none, fmt.Errorf("the key usage of %s allows to sign certificates or revocation lists", id)
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 {
		var server, client bool
		for _, u := range leaf.ExtKeyUsage {
			server = server || u == x509.ExtKeyUsageServerAuth
			client = client || u == x509.ExtKeyUsageClientAuth
		}
		if !server || !client {
			return none, fmt.Errorf("the extended key usage of %s lacks server or client authentication", id)
		}
	}
	if critical, _ := extension(leaf, oidSubjectAltName); !critical && string(leaf.RawSubject) == string(emptySequence) {
		return none, fmt.Errorf("%s has an empty subject, and its alternative name is not critical", id)
	}
	return id, nil
}

// signingRules checks what the X509-SVID standard asks of the intermediate certificates of a path. What
// RFC 5280 asks of them has been checked, and an authority in the bundle is trusted as it stands there.
func signingRules(chain []*x509.Certificate) error {
	if len(chain) < 2 {
		// The leaf itself stands in the bundle: it is no authority, whatever the bundle says.
		return fmt.Errorf("the certificate itself stands in the bundle, and is not signed by an authority")
	}
	for _, c := range chain[1 : len(chain)-1] {
		if c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return fmt.Errorf("the key usage of %q lacks keyCertSign", c.Subject)
		}
		if len(c.URIs) == 0 {
			continue
		}
		if len(c.URIs) > 1 {
			return fmt.Errorf("%q has %d URI names, not at most one", c.Subject, len(c.URIs))
		}
		id, err := spiffeid.FromURI(c.URIs[0])
		if err != nil {
			return fmt.Errorf("the URI name of %q is no SPIFFE ID: %w", c.Subject, err)
		}
		if id.Path() != "" {
			return fmt.Errorf("%s signs, but has a path", id)
		}
	}
	return nil
}

func endOf(chain []*x509.Certificate) time.Time {
	end := chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

func extension(c *x509.Certificate, oid asn1.ObjectIdentifier) (critical, present bool) {
	for _, e := range c.Extensions {
		if e.Id.Equal(oid) {
			return e.Critical, true
		}
	}
	return false, false
}
