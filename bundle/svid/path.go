package svid

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Misfit is what one of the verifiers refuses in a certificate of a path.
type Misfit struct {
	Certificate *x509.Certificate
	// Extension is the extension or field that is refused, in the words of RFC 5280.
	Extension string
	Why       string
}

func (m *Misfit) Error() string {
	return fmt.Sprintf(
		"certificate %s (serial %x): %s: %s",
		refusal.Clip(m.Certificate.Subject.String()),
		m.Certificate.SerialNumber,
		m.Extension,
		m.Why,
	)
}

var (
	oidBasicConstraints  = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints   = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidPolicyConstraints = asn1.ObjectIdentifier{2, 5, 29, 36}
	oidAuthorityKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// openSSLExtensions are the extensions that OpenSSL 3 accepts as critical, in its function X509_supported_extension. Go
// accepts fewer of them.
var openSSLExtensions = []asn1.ObjectIdentifier{
	oidKeyUsage, oidSubjectAltName, oidBasicConstraints, oidNameConstraints, oidExtKeyUsage,
	{2, 5, 29, 31}, // CRL distribution points
	{2, 5, 29, 32}, // certificate policies
	{2, 5, 29, 33}, // policy mappings
	oidPolicyConstraints,
	{2, 5, 29, 54},                // inhibit any policy
	{2, 16, 840, 1, 113730, 1, 1}, // Netscape certificate type
	{1, 3, 6, 1, 5, 5, 7, 1, 7},   // IP address blocks
	{1, 3, 6, 1, 5, 5, 7, 1, 8},   // autonomous system numbers
	{1, 3, 6, 1, 5, 5, 7, 1, 14},  // proxy certificate information
}

// RSA keys of the certificates between a leaf and its anchor: OpenSSL's security level 2, the default of distributions,
// accepts none below, and Go's TLS none above.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// CheckPath checks the certificates of a path, with the one whose names count first and the anchor last, by what Go,
// go-spiffe and OpenSSL require above a leaf, except for signatures, dates and certificate policies. It accepts what
// all three accept: a key usage that is not critical, for example, and an anchor without one. The error is a [*Misfit].
//
// The rules of OpenSSL are those of version 3 with the purposes sslserver and sslclient, without
// X509_V_FLAG_X509_STRICT. An anchor need not be self-signed, as under X509_V_FLAG_PARTIAL_CHAIN.
func CheckPath(path []*x509.Certificate, td spiffeid.TrustDomain) error {
	for i, cert := range path {
		if m := unfitAny(cert); m != nil {
			return m
		}
		if m := unfitIssuer(path, i); m != nil {
			return m
		}
		if i == 0 {
			continue
		}
		if m := unfitCA(cert, i == len(path)-1, i-1, td); m != nil {
			return m
		}
	}
	return CheckNames(path)
}

// unfitAny checks what holds for every certificate of a path.
func unfitAny(cert *x509.Certificate) *Misfit {
	for _, e := range cert.Extensions {
		if !e.Critical {
			continue
		}
		is := func(oid asn1.ObjectIdentifier) bool { return oid.Equal(e.Id) }
		switch {
		case slices.ContainsFunc(cert.UnhandledCriticalExtensions, is):
			return &Misfit{cert, extensionName(e.Id), "it is critical, and Go does not support it, or not all of it"}
		case !slices.ContainsFunc(openSSLExtensions, is):
			return &Misfit{cert, extensionName(e.Id), "it is critical, and OpenSSL does not support it"}
		}
	}
	return nil
}

func extensionName(oid asn1.ObjectIdentifier) string {
	if oid.Equal(oidNameConstraints) {
		return "name constraints"
	}
	return "extension " + oid.String()
}

// unfitCA checks a signing certificate. below is the number of signing certificates below it.
func unfitCA(cert *x509.Certificate, anchor bool, below int, td spiffeid.TrustDomain) *Misfit {
	_, hasUsage := critical(cert, oidKeyUsage)
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return &Misfit{cert, "basic constraints", "it is not the certificate of a CA"}
	case hasUsage && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return &Misfit{cert, "key usage", "it has no keyCertSign"}
	case !hasUsage && !anchor:
		return &Misfit{cert, "key usage", "it is missing, and go-spiffe requires keyCertSign below an anchor"}
	case cert.MaxPathLen >= 0 && below > cert.MaxPathLen:
		return &Misfit{cert, "basic constraints", fmt.Sprintf(
			"its path length allows %d signing certificates below it, and there are %d", cert.MaxPathLen, below)}
	case !bothExtendedUsages(cert):
		return &Misfit{cert, "extended key usage", "it is present and does not have both serverAuth and clientAuth, " +
			"which OpenSSL requires also above a leaf"}
	}
	if anchor {
		return nil // its key and its name are those of an authority of the bundle
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && (key.N.BitLen() < minRSABits || key.N.BitLen() > maxRSABits) {
		return &Misfit{cert, "subject public key", fmt.Sprintf(
			"RSA key of %d bits; OpenSSL and Go accept %d to %d", key.N.BitLen(), minRSABits, maxRSABits)}
	}
	if len(cert.URIs) == 0 {
		return nil // a signing certificate need not be an SVID
	}
	id, err := svidID(cert)
	switch {
	case err != nil:
		return &Misfit{cert, "subject alternative name", err.Error()}
	case id.Path() != "" || id.TrustDomain() != td:
		return &Misfit{cert, "subject alternative name", fmt.Sprintf(
			"a signing certificate of %s has the ID %s", td.Name(), id)}
	}
	return nil
}

// unfitIssuer checks that the certificate at i describes the one above it, or an anchor that issued itself the anchor.
// Go only prefers such an issuer, and OpenSSL looks for no other.
func unfitIssuer(path []*x509.Certificate, i int) *Misfit {
	cert, issuer := path[i], path[min(i+1, len(path)-1)]
	if cert == issuer && !selfIssued(cert) {
		return nil
	}
	const what = "authority key identifier"
	value, has := extension(cert, oidAuthorityKeyID)
	if !has {
		return nil
	}
	var content, names, serial cryptobyte.String
	var hasNames, hasSerial bool
	tag := func(n uint8) der.Tag { return der.Tag(n).ContextSpecific() }
	if !value.ReadASN1(&content, der.SEQUENCE) || !content.SkipOptionalASN1(tag(0)) ||
		!content.ReadOptionalASN1(&names, &hasNames, tag(1).Constructed()) ||
		!content.ReadOptionalASN1(&serial, &hasSerial, tag(2)) {
		return &Misfit{cert, what, "it cannot be decoded"}
	}
	switch {
	case len(cert.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 &&
		!bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId):
		return &Misfit{cert, what, fmt.Sprintf(
			"it is %x, and the subject key identifier of its issuer is %x; OpenSSL finds no issuer",
			clipped(cert.AuthorityKeyId), clipped(issuer.SubjectKeyId))}
	case hasSerial && !bytes.Equal(serial, encodedInt(issuer)):
		return &Misfit{cert, what, fmt.Sprintf(
			"it names another serial number than that of its issuer, %x; OpenSSL finds no issuer", issuer.SerialNumber)}
	case hasNames && !namesDirectory(names, issuer.RawIssuer):
		return &Misfit{cert, what, "it names another issuer than that of its issuer's certificate; OpenSSL finds " +
			"no issuer"}
	}
	return nil
}

// clipped bounds an identifier from outside for an error.
func clipped(id []byte) []byte { return id[:min(len(id), 32)] }

// encodedInt returns the content octets of a serial number.
func encodedInt(cert *x509.Certificate) []byte {
	var b cryptobyte.Builder
	b.AddASN1BigInt(cert.SerialNumber)
	encoded := cryptobyte.String(b.BytesOrPanic())
	var content cryptobyte.String
	encoded.ReadASN1(&content, der.INTEGER)
	return content
}

// namesDirectory reports whether the first directory name among general names is name. It is true if there is none.
func namesDirectory(names cryptobyte.String, name []byte) bool {
	for !names.Empty() {
		var value cryptobyte.String
		var tag der.Tag
		if !names.ReadAnyASN1(&value, &tag) {
			return false
		}
		if tag == tagDirectoryName {
			return sameName(value, name)
		}
	}
	return true
}

// extension returns the value of an extension.
func extension(cert *x509.Certificate, oid asn1.ObjectIdentifier) (value cryptobyte.String, has bool) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oid) {
			return e.Value, true
		}
	}
	return nil, false
}

func selfIssued(cert *x509.Certificate) bool { return sameName(cert.RawSubject, cert.RawIssuer) }
