package keys

import (
	"context"
	"crypto"
	"crypto/x509"
)

// Store keeps this member's signing keys and the certificates of its own roots. Its methods are called from many
// goroutines. What they return belongs to the caller.
type Store interface {
	// Create makes a key, replacing one of that name. It returns once the key is stored.
	Create(ctx context.Context, name string) (crypto.Signer, error)
	// Signer returns the key of that name. The error wraps [fs.ErrNotExist] if there is none. It is called inside
	// transactions, and so returns from memory or from this machine's disk. A signer whose key is elsewhere is not an
	// *ecdsa.PrivateKey; its signatures are verified.
	Signer(name string) (crypto.Signer, error)
	// Certify stores a certificate with the key of that name. It is deleted with its key.
	Certify(ctx context.Context, name string, certificate *x509.Certificate) error
	// Certificate returns what Certify stored, or nil. The error wraps [fs.ErrNotExist] if there is no such key.
	Certificate(name string) (*x509.Certificate, error)
	// Names returns the names of all keys.
	Names(ctx context.Context) ([]string, error)
	// Delete deletes a key. It is no error if there is none.
	Delete(ctx context.Context, name string) error
}

// Changing is implemented by a [Store] whose keys can become usable, or be lost, while the member runs. The channel of
// Changed receives a value when that has happened.
type Changing interface{ Changed() <-chan struct{} }
