// Package svid verifies X509-SVIDs against bundles.
//
// [Verify] checks a certificate and its chain by the rules of the SPIFFE standard X509-SVID: one SPIFFE ID with a path,
// no CA flag, the key usages, and a path to an authority of the ID's trust domain. [CheckPath] has the rules for the
// certificates above the leaf: what Go, go-spiffe and OpenSSL all accept, and nothing that one of them refuses. Each
// refusal is a sentinel error with a name for a metric, and names the certificate and the extension. The caller
// supplies the time and the bundles.
//
// This is the only verifier of X509-SVIDs: callers, bundle endpoints and what an upstream signed are judged by it.
package svid

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
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
// path to an authority passes [CheckPath]. A certificate in the bundle is not an SVID. go-spiffe's verifier does not
// check several of these. Every error holds one of this package's refusals.
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
		err = Explain(err, chain, authorities.X509Authorities(), id.TrustDomain(), now)
		return Verified{}, fmt.Errorf("%w: %s: %w", ErrUntrusted, id, err)
	}
	svid, unfit := Verified{ID: id}, error(nil)
	for _, path := range paths {
		if len(path) < 2 {
			unfit = errors.New("it stands in the bundle itself, and is not signed by an authority")
			continue
		}
		if err := CheckPath(path, id.TrustDomain()); err != nil {
			unfit = err
			continue
		}
		if end := PathEnd(path); end.After(svid.Until) {
			svid.Until = end
		}
	}
	if svid.Until.IsZero() {
		return Verified{}, fmt.Errorf("%w: %s: %w", ErrUntrusted, id, unfit)
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

// Explain describes a failure of x509.Verify by the certificate that is refused, if it can be found on the path that
// the chain was sent in. x509.Verify names neither the certificate nor the extension.
func Explain(err error, chain, anchors []*x509.Certificate, td spiffeid.TrustDomain, now time.Time) error {
	last := chain[len(chain)-1]
	at := slices.IndexFunc(anchors, func(anchor *x509.Certificate) bool {
		return last.Equal(anchor) ||
			bytes.Equal(last.RawIssuer, anchor.RawSubject) &&
				anchor.CheckSignature(last.SignatureAlgorithm, last.RawTBSCertificate, last.Signature) == nil
	})
	if at < 0 {
		return err
	}
	path := slices.Clone(chain)
	if !last.Equal(anchors[at]) {
		path = append(path, anchors[at])
	}
	for i, cert := range path[:len(path)-1] {
		if !bytes.Equal(cert.RawIssuer, path[i+1].RawSubject) {
			return err
		}
	}
	for _, cert := range path {
		switch {
		case now.After(cert.NotAfter):
			return &Misfit{cert, "validity", "it ended at " + cert.NotAfter.UTC().Format(time.RFC3339)}
		case now.Before(cert.NotBefore):
			return &Misfit{cert, "validity", "it begins at " + cert.NotBefore.UTC().Format(time.RFC3339)}
		}
	}
	if misfit := CheckPath(path, td); misfit != nil {
		return misfit
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.NoValidChains {
		for _, cert := range path {
			if _, has := extension(cert, oidPolicyConstraints); has {
				return &Misfit{cert, "policy constraints", "they require a policy that not all certificates below have"}
			}
		}
	}
	return err
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
