package memberid

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrSignature is wrapped by the errors of [VerifyIdentity].
var ErrSignature = errors.New("not signed with the identity key that it names")

// Sign signs with the identity key, for a verifier that has its digest and is not a member of this cluster. A signature
// for one purpose is not valid for another.
func (i *Identity) Sign(purpose string, parts ...[]byte) ([]byte, error) {
	key, ok := i.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("the identity key is a %T, which does not sign", i.Certificate.PrivateKey)
	}
	digest := signedDigest(purpose, parts)
	return key.Sign(rand.Reader, digest[:], crypto.SHA256)
}

// VerifyIdentity verifies a signature made by [Identity.Sign], and returns the digest of the identity key that made it.
// The caller has to compare the digest with the one that it expects.
func VerifyIdentity(certificate []byte, purpose string, signature []byte, parts ...[]byte) (Digest, error) {
	digest, err := ParseCertificate(certificate)
	if err != nil {
		return Digest{}, fmt.Errorf("%w: %w", err, ErrSignature)
	}
	c, err := x509.ParseCertificate(certificate)
	if err != nil {
		return Digest{}, fmt.Errorf("%w: %w", err, ErrSignature)
	}
	is := signedDigest(purpose, parts)
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(key, is[:], signature) {
		return Digest{}, ErrSignature
	}
	return digest, nil
}

// signedDigest hashes the parts, each after its length.
func signedDigest(purpose string, parts [][]byte) (digest [32]byte) {
	h := sha256.New()
	for _, part := range append([][]byte{[]byte("entente identity key"), []byte(purpose)}, parts...) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	h.Sum(digest[:0])
	return digest
}
