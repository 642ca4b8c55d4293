package keys

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Wrapper encrypts data keys with a wrapping key that is kept outside of the key folder. bound is authenticated with
// the data key: what was wrapped with other bytes does not unwrap.
type Wrapper interface {
	// ID names the wrapping key. It is stored beside the data key, and is not secret.
	ID() string
	// Remote reports whether the wrapping key is in another system. Its calls can then fail for a while, and its
	// versions change: the data key is wrapped again from time to time.
	Remote() bool
	Wrap(ctx context.Context, dataKey, bound []byte) ([]byte, error)
	Unwrap(ctx context.Context, wrapped, bound []byte) ([]byte, error)
}

// keySize is the size of data keys and of local wrapping keys, for AES-256.
const keySize = 32

// LocalWrapper is a [Wrapper] whose key is in this process: AES-256 in GCM with random nonces.
type LocalWrapper struct {
	id   string
	aead cipher.AEAD
}

var _ Wrapper = (*LocalWrapper)(nil)

// ParseLocalWrapper returns a wrapper with a key of 32 bytes in base64.
func ParseLocalWrapper(text string) (*LocalWrapper, error) {
	key, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("a wrapping key is %d bytes in base64; make one with `openssl rand -base64 %[1]d`",
			keySize)
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("entente wrapping key\x00"), key...))
	return &LocalWrapper{id: "key:" + hex.EncodeToString(sum[:8]), aead: aead}, nil
}

// ID returns "key:" and a fingerprint of the key.
func (w *LocalWrapper) ID() string { return w.id }

// Remote returns false.
func (w *LocalWrapper) Remote() bool { return false }

// Wrap implements [Wrapper].
func (w *LocalWrapper) Wrap(_ context.Context, dataKey, bound []byte) ([]byte, error) {
	return w.aead.Seal(nil, nil, dataKey, bound), nil
}

// Unwrap implements [Wrapper].
func (w *LocalWrapper) Unwrap(_ context.Context, wrapped, bound []byte) ([]byte, error) {
	dataKey, err := w.aead.Open(nil, nil, wrapped, bound)
	if err != nil {
		return nil, errors.New("the data key was altered, or belongs to another member")
	}
	return dataKey, nil
}

// newAEAD returns AES-GCM that chooses its nonces itself. A data key encrypts some files a day, far below the 2³² that
// random nonces allow (NIST SP 800-38D, section 8.3).
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
