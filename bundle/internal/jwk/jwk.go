// Package jwk reads the keys of bundle documents, which are JSON Web Keys (RFC 7517).
//
// It checks that a key is one that SVIDs can be verified with, that the members of a key agree with its certificate,
// and that parsing the certificates of a document costs a bounded amount of memory. It does not read whole documents;
// package bundle does.
package jwk

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Refusals of keys.
var (
	ErrKey        error = refusal.New("bad_key", "the key is malformed")
	ErrTooComplex error = refusal.New("too_complex", "the certificates of the document have more parts than allowed")
)

// MaxKeyIDBytes bounds the kid of a JWT authority.
const MaxKeyIDBytes = 256

// The uses of keys in a bundle. They are case-sensitive.
const (
	UseX509 = "x509-svid"
	UseJWT  = "jwt-svid"
	UseWIT  = "wit-svid"
)

// RSA keys outside of these sizes are not used: smaller ones are forgeable, and Go's TLS refuses larger ones.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// Key is a key in its written form, with members in this order and no others. An x509-svid key has no kid, a key of
// another use no x5c.
type Key struct {
	KeyType string   `json:"kty"`
	Use     string   `json:"use"`
	KeyID   string   `json:"kid,omitempty"`
	Curve   string   `json:"crv,omitempty"`
	X       string   `json:"x,omitempty"`
	Y       string   `json:"y,omitempty"`
	N       string   `json:"n,omitempty"`
	E       string   `json:"e,omitempty"`
	X5C     []string `json:"x5c,omitempty"`
}

var curveNames = map[elliptic.Curve]string{
	elliptic.P256(): "P-256",
	elliptic.P384(): "P-384",
	elliptic.P521(): "P-521",
}

func curveByName(name string) elliptic.Curve {
	for curve, n := range curveNames {
		if n == name {
			return curve
		}
	}
	return nil
}

// New returns the written form of a public key.
func New(key crypto.PublicKey) (Key, error) {
	enc := base64.RawURLEncoding.EncodeToString
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
		}
		half := (len(point) - 1) / 2
		return Key{KeyType: "EC", Curve: curveNames[key.Curve], X: enc(point[1 : 1+half]), Y: enc(point[1+half:])}, nil
	case *rsa.PublicKey:
		return Key{KeyType: "RSA", N: enc(key.N.Bytes()), E: enc(big.NewInt(int64(key.E)).Bytes())}, nil
	case ed25519.PublicKey:
		return Key{KeyType: "OKP", Curve: "Ed25519", X: enc(key)}, nil
	}
	return Key{}, fmt.Errorf("%w: keys of type %T have no place in a bundle", ErrKey, key)
}

// ErrUnusable marks a well-formed key outside of the range that verifiers support.
var ErrUnusable = errors.New("unusable key")

// PublicKey reads the public key in a JWK's own members. The error wraps [ErrUnusable] for keys that RFC 7517 advises a
// reader to ignore, and [ErrKey] for broken ones.
func PublicKey(m map[string]string) (crypto.PublicKey, error) {
	switch m["kty"] {
	case "EC":
		return ecPublicKey(m)
	case "RSA":
		return rsaPublicKey(m)
	case "OKP":
		if m["crv"] != "Ed25519" {
			return nil, fmt.Errorf("%w: curve %s", ErrUnusable, refusal.Clip(m["crv"]))
		}
		x, err := keyBytes(m, "x")
		if err != nil {
			return nil, err
		}
		if len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: x has %d bytes, Ed25519 keys have %d", ErrKey, len(x), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, fmt.Errorf("%w: kty %s", ErrUnusable, refusal.Clip(m["kty"]))
}

func ecPublicKey(m map[string]string) (crypto.PublicKey, error) {
	curve := curveByName(m["crv"])
	if curve == nil {
		return nil, fmt.Errorf("%w: curve %s", ErrUnusable, refusal.Clip(m["crv"]))
	}
	point := []byte{4} // uncompressed, SEC 1
	size := (curve.Params().BitSize + 7) / 8
	for _, name := range []string{"x", "y"} {
		coordinate, err := keyBytes(m, name)
		if err != nil {
			return nil, err
		}
		if len(coordinate) != size {
			return nil, fmt.Errorf(
				"%w: %s has %d bytes, %s has coordinates of %d",
				ErrKey,
				name,
				len(coordinate),
				m["crv"],
				size,
			)
		}
		point = append(point, coordinate...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, fmt.Errorf("%w: the point is not on %s", ErrKey, m["crv"])
	}
	return key, nil
}

func rsaPublicKey(m map[string]string) (crypto.PublicKey, error) {
	n, err := keyBytes(m, "n")
	if err != nil {
		return nil, err
	}
	e, err := keyBytes(m, "e")
	if err != nil {
		return nil, err
	}
	if n[0] == 0 || e[0] == 0 {
		return nil, fmt.Errorf("%w: n and e have no leading zero bytes (RFC 7518, section 2)", ErrKey)
	}
	// crypto/rsa takes exponents of up to 31 bits.
	if len(e) > 4 || new(big.Int).SetBytes(e).BitLen() > 31 {
		return nil, fmt.Errorf("%w: RSA exponent of %d bytes", ErrUnusable, len(e))
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	if why := unusableRSA(key); why != "" {
		return nil, fmt.Errorf("%w: %s", ErrUnusable, why)
	}
	return key, nil
}

// keyBytes decodes a member in unpadded base64url (RFC 7515, section 2). Go's decoder skips line breaks and trailing
// bits by default; here a second spelling of a key is refused.
func keyBytes(m map[string]string, name string) ([]byte, error) {
	s, ok := m[name]
	if !ok || s == "" {
		return nil, fmt.Errorf("%w: no %s", ErrUnusable, name)
	}
	if strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%w: %s is not base64url: it has line breaks", ErrKey, name)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not base64url without padding", ErrKey, name)
	}
	return b, nil
}

// Certificate decodes one element of an x5c: DER in padded base64 (RFC 7517, section 4.7). It subtracts its ASN.1
// elements from left.
func Certificate(s string, left *int) (*x509.Certificate, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%w: x5c is not base64: it has line breaks", ErrKey)
	}
	der, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: x5c is not base64 with padding", ErrKey)
	}
	if *left -= elements(der, *left+1, 0); *left < 0 {
		return nil, fmt.Errorf("%w: at most %d ASN.1 elements are allowed", ErrTooComplex, MaxElements)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: x5c holds no certificate: %w", ErrKey, err)
	}
	return cert, nil
}

// UnusableAuthority returns the reason why a certificate cannot be an X.509 authority, or "".
func UnusableAuthority(cert *x509.Certificate) string {
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return "it is not a CA certificate"
	}
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return unusableCurve(key)
	case *rsa.PublicKey:
		return unusableRSA(key)
	case ed25519.PublicKey:
		return ""
	}
	return "its key algorithm is not supported"
}

// UnusableJWTKey returns the reason why key cannot verify JWT-SVIDs, or "": the JWT-SVID standard allows RSA and ECDSA
// only.
func UnusableJWTKey(key crypto.PublicKey) string {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key == nil {
			return "it is nil"
		}
		return unusableCurve(key)
	case *rsa.PublicKey:
		if key == nil || key.N == nil {
			return "it is nil"
		}
		return unusableRSA(key)
	}
	return fmt.Sprintf("keys of type %T do not verify JWT-SVIDs", key)
}

// UnusableWITKey returns the reason why key cannot verify WIT-SVIDs, or "".
func UnusableWITKey(key crypto.PublicKey) string {
	if _, ok := key.(ed25519.PublicKey); ok {
		return ""
	}
	return strings.Replace(UnusableJWTKey(key), "JWT-SVIDs", "WIT-SVIDs", 1)
}

// Algorithm returns the JWS algorithm of an ECDSA key, which its curve decides, or "" for other keys.
func Algorithm(key crypto.PublicKey) string {
	if key, ok := key.(*ecdsa.PublicKey); ok {
		switch key.Curve {
		case elliptic.P256():
			return "ES256"
		case elliptic.P384():
			return "ES384"
		case elliptic.P521():
			return "ES512"
		}
	}
	return ""
}

func unusableCurve(key *ecdsa.PublicKey) string {
	if _, ok := curveNames[key.Curve]; !ok {
		return "its curve is not one of P-256, P-384 and P-521"
	}
	if _, err := key.Bytes(); err != nil {
		return "its point is not on the curve"
	}
	return ""
}

func unusableRSA(key *rsa.PublicKey) string {
	switch bits := key.N.BitLen(); {
	case bits < minRSABits || bits > maxRSABits:
		return fmt.Sprintf("RSA key of %d bits; %d to %d are supported", bits, minRSABits, maxRSABits)
	case key.N.Bit(0) == 0:
		return "RSA modulus is even"
	case key.E < 3 || key.E&1 == 0 || int64(key.E) > 1<<31-1:
		return fmt.Sprintf("RSA exponent %d is not supported", key.E)
	}
	return ""
}

// CheckKeyID returns why a kid is not valid for a JWT authority, or nil.
func CheckKeyID(kid string) error {
	switch {
	case kid == "":
		return errors.New("its kid is empty")
	case len(kid) > MaxKeyIDBytes:
		return fmt.Errorf("its kid has %d bytes, at most %d are allowed", len(kid), MaxKeyIDBytes)
	case strings.ToValidUTF8(kid, "") != kid:
		return errors.New("its kid is not valid UTF-8")
	}
	return nil
}
