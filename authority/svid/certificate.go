package svid

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Backdate is the time by which NotBefore lies in the past, for readers whose clocks are slightly behind.
const Backdate = 10 * time.Second

// newSerial returns a random positive serial number of 128 bits.
func newSerial() (*big.Int, error) {
	var b [16]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return nil, fmt.Errorf("make a serial number: %w", err)
		}
		// The highest bit is the DER sign; with it set the number takes 17 octets. RFC 5280 allows 20.
		if serial := new(big.Int).SetBytes(b[:]); serial.Sign() > 0 {
			return serial, nil
		}
	}
}

// keyID returns the subject key identifier of a public key: the leftmost 160 bits of the SHA-256 of its
// SubjectPublicKeyInfo (RFC 7093, method 4, cut to the length of method 1).
func keyID(key crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the public key: %w", err)
	}
	return keyIDOf(spki), nil
}

// keyIDOf returns the subject key identifier of an encoded public key.
func keyIDOf(spki []byte) []byte {
	sum := sha256.Sum256(spki)
	return sum[:20]
}

// AnchorID returns the ID under which an anchor is listed: its subject key identifier in hexadecimal, or what that
// would be if it has none.
func AnchorID(anchor *x509.Certificate) string {
	if len(anchor.SubjectKeyId) > 0 {
		return hex.EncodeToString(anchor.SubjectKeyId)
	}
	sum := sha256.Sum256(anchor.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:20])
}

// CATemplate returns the template of a CA certificate of td, for an anchor or below one. maxPathLen is the number of
// CAs below it.
func CATemplate(
	td spiffeid.TrustDomain, key crypto.PublicKey, name string, now, notAfter time.Time, maxPathLen int,
) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	id, err := keyID(key)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		// The serial number in the subject keeps the names of a domain's authorities apart, so that a verifier that
		// builds chains by name finds the right one at once.
		Subject: pkix.Name{
			Organization: []string{"Entente"}, CommonName: name, SerialNumber: hex.EncodeToString(id),
		},
		NotBefore:             now.Add(-Backdate).UTC().Truncate(time.Second),
		NotAfter:              notAfter.UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            maxPathLen,
		MaxPathLenZero:        maxPathLen == 0,
		SubjectKeyId:          id,
		URIs:                  []*url.URL{td.ID().URL()},
	}, nil
}

// SignCertificate signs the certificate of a template. The exact bytes to be signed pass lint first, or nothing is
// signed.
func SignCertificate(
	template, issuer *x509.Certificate, key crypto.PublicKey, signer crypto.Signer,
	lint func(*x509.Certificate) error,
) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key, linted{signer, lint})
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
