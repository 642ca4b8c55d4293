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

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/ententehq/entente/authority/keys"
)

// TokenHeader returns the header of all JWT-SVIDs of an authority, in base64url. It contains the type and the key ID.
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

// SignToken returns a JWT in compact serialization (RFC 7515, section 7.1), signed by ES256 with the P-256 key of an
// authority.
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

// JWSSignature converts a DER signature to the form of JWS: both numbers at full length (RFC 7518, section 3.4).
func JWSSignature(signature []byte) (fixed [2 * p256Bytes]byte, err error) {
	var inner cryptobyte.String
	var r, s big.Int
	input := cryptobyte.String(signature)
	const bits = 8 * p256Bytes
	if !input.ReadASN1(&inner, der.SEQUENCE) || !inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) ||
		!inner.Empty() || !input.Empty() || r.Sign() < 0 || s.Sign() < 0 || r.BitLen() > bits || s.BitLen() > bits {
		return fixed, errors.New("the key did not make a P-256 signature")
	}
	r.FillBytes(fixed[:p256Bytes])
	s.FillBytes(fixed[p256Bytes:])
	return fixed, nil
}
