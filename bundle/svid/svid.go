// Package svid verifies X509-SVIDs against bundles.
//
// [Verify] checks a certificate and its chain by the rules of the SPIFFE standard X509-SVID: one SPIFFE ID with a path,
// no CA flag, the key usages, and a path to an authority of the ID's trust domain. Each refusal is a sentinel error
// with a name for a metric. The caller supplies the time and the bundles.
package svid

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
)

// maxChain bounds the certificates of a chain: one leaf and more intermediates than any hierarchy has.
const maxChain = 8

var (
	oidKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// Verified is a verified X509-SVID: its ID, and the time until which it is valid. That is the end of the longest path
// to an authority. A path ends with the first of its certificates to expire, including the anchor.
type Verified struct {
	ID    spiffeid.ID
	Until time.Time
}

// Verify verifies the chain of an X509-SVID, leaf first, against the bundle of its trust domain, by all rules of the
// X509-SVID standard. A leaf has one URI SAN, an ID with a path, no CA flag, critical key usage with digitalSignature
// and without signing of certificates, both extended usages or neither, and a critical SAN if its subject is empty. A
// certificate between leaf and anchor has critical key usage with keyCertSign, and no ID but the trust domain's own. A
// certificate in the bundle is not an SVID. go-spiffe's verifier does not check several of these. Every error holds one
// of this package's refusals.
func Verify(chain []*x509.Certificate, bundles x509bundle.Source, now time.Time) (Verified, error) {
	switch {
	case len(chain) == 0:
		return Verified{}, ErrMissing
	case len(chain) > maxChain:
		return Verified{}, fmt.Errorf(
			"%w: it comes with %d certificates, at most %d are allowed",
			ErrInvalid,
			len(chain),
			maxChain,
		)
	}
	leaf := chain[0]
	id, err := svidID(leaf)
	if err != nil {
		return Verified{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	switch why := unfitLeaf(leaf, id); {
	case why != "":
		return Verified{}, fmt.Errorf("%w: %s: %s", ErrInvalid, id, why)
	case now.After(leaf.NotAfter):
		return Verified{}, fmt.Errorf(
			"%w: %s: it ended at %s; present a renewed one",
			ErrExpired,
			id,
			leaf.NotAfter.UTC().Format(time.RFC3339),
		)
	case now.Before(leaf.NotBefore):
		return Verified{}, fmt.Errorf(
			"%w: %s: it begins at %s; compare the clocks",
			ErrNotYetValid,
			id,
			leaf.NotBefore.UTC().Format(time.RFC3339),
		)
	}
	authorities, err := bundles.GetX509BundleForTrustDomain(id.TrustDomain())
	if err != nil {
		return Verified{}, fmt.Errorf("%w: %s: %w", ErrNoBundle, id, err)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range authorities.X509Authorities() {
		roots.AddCert(cert)
	}
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	paths, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // those of the leaf are checked above
	})
	if err != nil {
		return Verified{}, fmt.Errorf("%w: %s: %w", ErrUntrusted, id, err)
	}
	svid, unfit := Verified{ID: id}, ""
	for _, path := range paths {
		if why := unfitPath(path, id.TrustDomain()); why != "" {
			unfit = why
			continue
		}
		if end := PathEnd(path); end.After(svid.Until) {
			svid.Until = end
		}
	}
	if svid.Until.IsZero() {
		return Verified{}, fmt.Errorf("%w: %s: %s", ErrUntrusted, id, unfit)
	}
	return svid, nil
}

// PathEnd returns the time at which the first certificate of a path expires.
func PathEnd(path []*x509.Certificate) time.Time {
	end := path[0].NotAfter
	for _, cert := range path[1:] {
		if cert.NotAfter.Before(end) {
			end = cert.NotAfter
		}
	}
	return end
}

// svidID returns the one URI SAN of a certificate as a SPIFFE ID.
func svidID(cert *x509.Certificate) (spiffeid.ID, error) {
	if len(cert.URIs) != 1 {
		return spiffeid.ID{}, fmt.Errorf("it has %d URI SANs, an X509-SVID has one", len(cert.URIs))
	}
	return bundle.ParseID(cert.URIs[0].String())
}

// unfitLeaf returns the rule for leaves that the certificate breaks, or "".
func unfitLeaf(leaf *x509.Certificate, id spiffeid.ID) string {
	usage, hasUsage := critical(leaf, oidKeyUsage)
	san, _ := critical(leaf, oidSubjectAltName)
	emptySubject := len(leaf.Subject.Names) == 0
	switch {
	case id.Path() == "":
		return "the ID of a leaf has a path"
	case leaf.IsCA:
		return "it is a CA certificate"
	case !hasUsage || !usage:
		return "its key usage is not there or not critical"
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return "its key usage has no digitalSignature"
	case leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return "its key usage has keyCertSign or cRLSign"
	case !bothExtendedUsages(leaf):
		return "its extended key usage does not have both serverAuth and clientAuth"
	case emptySubject && !san:
		return "its subject is empty and its subject alternative name is not critical"
	}
	return ""
}

func bothExtendedUsages(leaf *x509.Certificate) bool {
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) &&
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}

// unfitPath returns the reason why a signing certificate between leaf and anchor is not fit for an SVID of td, or "".
// The anchor is not checked: it is in the bundle.
func unfitPath(path []*x509.Certificate, td spiffeid.TrustDomain) string {
	if len(path) < 2 {
		return "it stands in the bundle itself, and is not signed by an authority"
	}
	for _, cert := range path[1 : len(path)-1] {
		if critical, has := critical(cert, oidKeyUsage); !has || !critical || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
			return "a signing certificate above it has no critical key usage with keyCertSign"
		}
		if len(cert.URIs) == 0 {
			continue // a signing certificate need not be an SVID
		}
		id, err := svidID(cert)
		if err != nil {
			return "a signing certificate above it: " + err.Error()
		}
		if id.Path() != "" || id.TrustDomain() != td {
			return fmt.Sprintf("a signing certificate above it has the ID %s", id)
		}
	}
	return ""
}

// critical reports whether an extension is critical, and whether the certificate has it.
func critical(cert *x509.Certificate, oid asn1.ObjectIdentifier) (critical, has bool) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oid) {
			return e.Critical, true
		}
	}
	return false, false
}
