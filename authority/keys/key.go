package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Generate returns a new P-256 key.
func Generate() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// ErrNotP256 is returned for a key on another curve than P-256.
var ErrNotP256 = errors.New("the authority's key is not on P-256")

// SignDigest returns an ECDSA signature of a digest. A signature that was made outside of this process is verified.
func SignDigest(key crypto.Signer, digest [sha256.Size]byte) ([]byte, error) {
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if _, here := key.(*ecdsa.PrivateKey); here {
		return signature, nil
	}
	public, ok := key.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, ErrNotP256
	}
	if !ecdsa.VerifyASN1(public, digest[:], signature) {
		return nil, errors.New("the signature that came back does not verify with the authority's key")
	}
	return signature, nil
}
