package svid

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/ententehq/entente/authority/keys"
	"github.com/go-jose/go-jose/v4/jwt"
)

// tokenHeader is the header of every JWT-SVID of an authority, base64url. The type is set, and the key ID, which a
// reader finds the key by.
func TokenHeader(kid string) (string, error) {
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}{"ES256", kid, "JWT"})
	if err != nil {
		return "", fmt.Errorf("write the header of tokens: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(header), nil
}

// signToken makes a JWT in compact serialization (RFC 7515, section 7.1), ES256, with an authority's P-256 key.
func SignToken(header string, claims jwt.Claims, key crypto.Signer) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("write the claims: %w", err)
	}
	enc := base64.RawURLEncoding
	token := make([]byte, 0, len(header)+enc.EncodedLen(len(payload))+2+enc.EncodedLen(2*p256Bytes))
	token = append(append(token, header...), '.')
	token = enc.AppendEncode(token, payload)
	signature, err := keys.SignDigest(key, sha256.Sum256(token))
	if err != nil {
		return "", err
	}
	fixed, err := JWSSignature(signature)
	if err != nil {
		return "", err
	}
	return string(enc.AppendEncode(append(token, '.'), fixed[:])), nil
}

// p256Bytes is the length of a number below the order of P-256.
const p256Bytes = 32

// fixedSignature is a DER signature as JWS has it: both numbers at their full length (RFC 7518, section 3.4).
func JWSSignature(signature []byte) (fixed [2 * p256Bytes]byte, err error) {
	var inner cryptobyte.String
	var r, s big.Int
	input := cryptobyte.String(signature)
	if !input.ReadASN1(&inner, der.SEQUENCE) || !inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) ||
		!inner.Empty() || !input.Empty() || r.Sign() < 0 || s.Sign() < 0 || r.BitLen() > 8*p256Bytes || s.BitLen() > 8*p256Bytes {
		return fixed, errors.New("the key did not make a P-256 signature")
	}
	r.FillBytes(fixed[:p256Bytes])
	s.FillBytes(fixed[p256Bytes:])
	return fixed, nil
}
