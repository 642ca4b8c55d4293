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

// backdate is how far a certificate's NotBefore lies in the past, for readers whose clocks are a little behind.
const Backdate = 10 * time.Second

// newSerial returns a random positive serial number of 128 bits.
func newSerial() (*big.Int, error) {
	var b [16]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return nil, fmt.Errorf("make a serial number: %w", err)
		}
		// The highest bit is the DER sign; with it set the number takes 17 octets, which RFC 5280 allows (20 is the limit).
		if serial := new(big.Int).SetBytes(b[:]); serial.Sign() > 0 {
			return serial, nil
		}
	}
}

// keyID is the subject key identifier of a public key: the leftmost 160 bits of the
// SHA-256 of its SubjectPublicKeyInfo (RFC 7093, method 4, cut to the length of method 1).
func keyID(key crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the public key: %w", err)
	}
	return keyIDOf(spki), nil
}

// keyIDOf is keyID of a key that is encoded already.
func keyIDOf(spki []byte) []byte {
	sum := sha256.Sum256(spki)
	return sum[:20]
}

// AnchorID is the name by which an anchor is shown: its subject key identifier in hexadecimal, or where it has none
// what that would be.
func AnchorID(anchor *x509.Certificate) string {
	if len(anchor.SubjectKeyId) > 0 {
		return hex.EncodeToString(anchor.SubjectKeyId)
	}
	sum := sha256.Sum256(anchor.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:20])
}

// caTemplate is the certificate of a signing key of td, anchor or below one. maxPathLen counts the CAs below it.
func CATemplate(td spiffeid.TrustDomain, key crypto.PublicKey, name string, now, notAfter time.Time, maxPathLen int) (*x509.Certificate, error) {
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
		Subject:               pkix.Name{Organization: []string{"Entente"}, CommonName: name, SerialNumber: hex.EncodeToString(id)},
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

// sign makes the certificate of template. The exact bytes that are to be signed pass lint first; if they do not,
// nothing is signed.
func SignCertificate(template, issuer *x509.Certificate, key crypto.PublicKey, signer crypto.Signer, lint func(*x509.Certificate) error) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key, linted{signer, lint})
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
