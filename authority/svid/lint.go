package svid

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ErrLint is wrapped if a certificate or token is not signed because it would break a rule.
var ErrLint = errors.New("it would break a rule for SVIDs, and was not signed")

var (
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// LintLeaf checks an X509-SVID for id, signed by issuer, against the rules for leaf certificates.
func LintLeaf(id spiffeid.ID, issuer *x509.Certificate) func(*x509.Certificate) error {
	return func(c *x509.Certificate) error {
		if err := lintBoth(c, id.String()); err != nil {
			return err
		}
		switch {
		case id.Path() == "":
			return broken("a leaf's SPIFFE ID has a path")
		case c.IsCA:
			return broken("a leaf is no CA")
		case c.KeyUsage != x509.KeyUsageDigitalSignature:
			return broken("a leaf's key usage is digitalSignature alone")
		case !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}):
			return broken("a leaf's extended key usage is serverAuth and clientAuth")
		case c.NotAfter.After(issuer.NotAfter) || c.NotBefore.Before(issuer.NotBefore):
			return broken("a leaf lives within the life of its authority")
		case !slices.Equal(c.AuthorityKeyId, issuer.SubjectKeyId):
			return broken("the authority key identifier is the issuer's")
		case len(c.EmailAddresses) != 0 || (len(c.IPAddresses) != 0 && !Reserved(id)):
			return broken("a leaf names a URI and DNS names and nothing else, but for the address in a member's own")
		}
		if err := checkDNSNames(c.DNSNames); err != nil {
			return fmt.Errorf("%w: %w", ErrLint, err)
		}
		if err := checkKey(c.PublicKey); err != nil {
			return fmt.Errorf("%w: %w", ErrLint, err)
		}
		return nil
	}
}

// LintCA checks a CA certificate of td against the rules for signing certificates.
func LintCA(td spiffeid.TrustDomain) func(*x509.Certificate) error {
	return func(c *x509.Certificate) error {
		if err := lintBoth(c, td.IDString()); err != nil {
			return err
		}
		switch {
		case !c.IsCA:
			return broken("a signing certificate is a CA")
		case c.KeyUsage&x509.KeyUsageCertSign == 0:
			return broken("a signing certificate has keyCertSign")
		case c.KeyUsage&^(x509.KeyUsageCertSign|x509.KeyUsageCRLSign|x509.KeyUsageDigitalSignature) != 0:
			return broken("a signing certificate has keyCertSign, cRLSign and digitalSignature at most")
		case len(c.SubjectKeyId) == 0:
			return broken("a signing certificate has a subject key identifier")
		case len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses) != 0:
			return broken("a signing certificate names its trust domain and nothing else")
		}
		return nil
	}
}

// lintBoth checks the rules for all certificates. uri is the only URI that the certificate must name.
func lintBoth(c *x509.Certificate, uri string) error {
	switch {
	case c.Version != 3:
		return broken("a certificate is of version 3")
	case c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() > 159:
		return broken("a serial number is positive and has at most 20 octets")
	case len(c.URIs) != 1:
		return broken("a certificate has exactly one URI name")
	case c.URIs[0].String() != uri:
		return broken(fmt.Sprintf("the URI name is %s, not %q", uri, c.URIs[0]))
	case len(uri) > maxSPIFFEID:
		return broken("a SPIFFE ID has at most 2048 bytes")
	case !c.BasicConstraintsValid || !critical(c, oidBasicConstraints):
		return broken("basic constraints are present and critical")
	case !critical(c, oidKeyUsage):
		return broken("key usage is present and critical")
	case len(c.Subject.Names) == 0 && !critical(c, oidSubjectAltName):
		return broken("the subject alternative name is critical where the subject is empty")
	case !c.NotBefore.Before(c.NotAfter):
		return broken("a certificate begins before it ends")
	case len(c.UnhandledCriticalExtensions) != 0:
		return broken("no critical extension is unknown")
	}
	return nil
}

func broken(rule string) error { return fmt.Errorf("%w: %s", ErrLint, rule) }

func critical(c *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Critical && e.Id.Equal(oid) })
}

// linted signs certificates that pass lint. It receives the bytes to be signed, not their digest.
type linted struct {
	crypto.Signer
	lint func(*x509.Certificate) error
}

var _ crypto.MessageSigner = linted{}

// SignMessage is called by x509.CreateCertificate with the bytes to be signed.
func (l linted) SignMessage(rand io.Reader, tbs []byte, opts crypto.SignerOpts) ([]byte, error) {
	c, err := parseTBS(tbs)
	if err != nil {
		return nil, err
	}
	if err := l.lint(c); err != nil {
		return nil, err
	}
	return crypto.SignMessage(l.Signer, rand, tbs, opts)
}

// parseTBS parses a certificate that is not signed, by adding an empty signature.
func parseTBS(tbs []byte) (*x509.Certificate, error) {
	var head struct {
		Raw       asn1.RawContent
		Version   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		Validity  asn1.RawValue
		Subject   asn1.RawValue
		PublicKey asn1.RawValue
	}
	if _, err := asn1.Unmarshal(tbs, &head); err != nil {
		return nil, fmt.Errorf("%w: it is not a certificate: %w", ErrLint, err)
	}
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, head.Algorithm, asn1.BitString{}})
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be encoded: %w", ErrLint, err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not a certificate: %w", ErrLint, err)
	}
	return c, nil
}

// Fingerprint returns the name of a public key in the audit log.
func Fingerprint(spki []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(spki)) }

// LintClaims checks the claims of a JWT-SVID for id before they are signed by an authority that expires at notAfter.
func LintClaims(c jwt.Claims, id spiffeid.ID, notAfter time.Time) error {
	switch {
	case c.Subject != id.String() || id.Path() == "":
		return broken("sub is the SPIFFE ID of a workload")
	case c.Expiry == nil || c.IssuedAt == nil || !c.IssuedAt.Time().Before(c.Expiry.Time()):
		return broken("a token has iat and exp, and ends after it begins")
	case c.Expiry.Time().After(notAfter):
		return broken("a token lives within the life of its authority")
	}
	if err := checkAudience(c.Audience); err != nil {
		return fmt.Errorf("%w: %w", ErrLint, err)
	}
	return nil
}
