// Package possession has the proof that one end of a TLS session has the private key of a certificate, when the session
// itself does not authenticate it: a member that proves its X509-SVID, and an agent that proves the certificate of its
// node.
//
// A proof is a signature over a purpose, the session and the prover's identity, so that none counts elsewhere. The
// session is known by a value that both of its ends derive from it.
package possession

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// Purpose separates proofs of different kinds.
type Purpose string

// The purposes of proofs.
const (
	// OfMember is the proof of a member that it has its X509-SVID.
	OfMember Purpose = "entente member\x00"
	// OfNode is the proof of an agent that it has the certificate of its node.
	OfNode Purpose = "entente agent x509pop\x00"
)

const minRSABits = 2048

// message is what is signed. identity is that of the agent's key, or empty.
func (p Purpose) message(binding, identity []byte) []byte {
	return append(append([]byte(p), binding...), identity...)
}

// Prove signs a TLS session for an identity with the key of a certificate.
func Prove(p Purpose, key crypto.Signer, binding, identity []byte) ([]byte, error) {
	message := p.message(binding, identity)
	switch key.Public().(type) {
	case ed25519.PublicKey:
		return key.Sign(nil, message, crypto.Hash(0))
	case *rsa.PublicKey:
		sum := sha256.Sum256(message)
		pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		return key.Sign(rand.Reader, sum[:], pss)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	return nil, fmt.Errorf("the certificate has a key of the type %T: use ECDSA, RSA or Ed25519", key.Public())
}

// Verify returns nil if signature is the proof of [Prove] by the key of a certificate.
func Verify(p Purpose, of *x509.Certificate, binding, identity, signature []byte) error {
	if len(binding) == 0 {
		return errors.New("the session has no binding")
	}
	var algorithm x509.SignatureAlgorithm
	switch key := of.PublicKey.(type) {
	case ed25519.PublicKey:
		algorithm = x509.PureEd25519
	case *ecdsa.PublicKey:
		algorithm = x509.ECDSAWithSHA256
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits {
			return fmt.Errorf("the certificate has an RSA key of %d bits: %d is the least", key.N.BitLen(), minRSABits)
		}
		algorithm = x509.SHA256WithRSAPSS
	default:
		return fmt.Errorf("the certificate has a key of the type %T: use ECDSA, RSA or Ed25519", of.PublicKey)
	}
	if err := of.CheckSignature(algorithm, p.message(binding, identity), signature); err != nil {
		return errors.New("the signature is not by the key of the certificate over this TLS session")
	}
	return nil
}
