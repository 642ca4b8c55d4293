// Package memberid describes a member of a cluster: its ID and address, and the identity key by which the others
// recognize it. Nothing here depends on a certificate that can expire.
package memberid

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Digest is the SHA-256 of an identity key's SubjectPublicKeyInfo, by which the cluster identifies the key.
type Digest = [32]byte

// digestOf returns the digest of the key in a certificate.
func digestOf(c *x509.Certificate) Digest { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Identity is a member's identity key, with the self-signed certificate that carries it in TLS. The names and dates of
// the certificate have no meaning and are ignored.
type Identity struct {
	Certificate tls.Certificate
	Digest      Digest
}

const (
	identityPEM  = "PRIVATE KEY"
	maxKeyBytes  = 4096 // a P-256 key has 241 in PEM
	identityMode = 0o600
)

// LoadIdentity reads the identity key from a file, and creates the key and the file if there is none. The file either
// exists in full or not at all, also after a power cut, and others cannot read it. A file that others can read, or that
// has no such key, is refused rather than replaced, because the cluster would not recognize the new key.
func LoadIdentity(path string) (*Identity, error) {
	key, err := readIdentity(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = createIdentity(path)
	}
	if err != nil {
		return nil, fmt.Errorf("identity key %s: %w", path, err)
	}
	return newIdentity(key)
}

func readIdentity(path string) (*ecdsa.PrivateKey, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf(
			"its mode is %#o, so that others can use it; if none has, chmod 600 it",
			info.Mode().Perm(),
		)
	case info.Size() > maxKeyBytes:
		return nil, fmt.Errorf("it has %d bytes, too many for a key", info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseIdentity(data)
}

func parseIdentity(data []byte) (*ecdsa.PrivateKey, error) {
	const remedy = "restore it from a copy, or remove this member from the cluster, empty its data folder and join " +
		"again"
	block, rest := pem.Decode(data)
	if block == nil || block.Type != identityPEM || len(rest) != 0 {
		return nil, fmt.Errorf("it does not hold exactly one %s in PEM; %s", identityPEM, remedy)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w; %s", err, remedy)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("it holds a %T, not a P-256 key; %s", parsed, remedy)
	}
	// A private key is any number, but the file has its public half as well, which the parser ignores.
	if written, err := encodeIdentity(key); err != nil || !bytes.Equal(written, data) {
		return nil, errors.Join(err, fmt.Errorf("it is damaged: it is not what was written for any key; %s", remedy))
	}
	return key, nil
}

// encodeIdentity returns the one form of a key in a file.
func encodeIdentity(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: identityPEM, Bytes: der}), nil
}

func createIdentity(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	data, err := encodeIdentity(key)
	if err != nil {
		return nil, err
	}
	return key, writeNew(path, data)
}

// writeNew writes a file that must not exist yet, in full or not at all.
func writeNew(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".identity-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // linked under its name, or of no use
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(identityMode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	// Unlike a rename, a link never replaces a key that was written meanwhile.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newIdentity(key *ecdsa.PrivateKey) (*Identity, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "entente member identity"},
		// The dates of RFC 5280 for a certificate without an end.
		NotBefore: time.Unix(0, 0),
		NotAfter:  time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the identity certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the identity certificate: %w", err)
	}
	return &Identity{
		Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		Digest:      digestOf(leaf),
	}, nil
}

// maxIdentityCertificate bounds what a joiner sends; a real one has some 300 bytes.
const maxIdentityCertificate = 4096

// ParseCertificate parses a joiner's identity certificate and verifies that its key has signed it.
func ParseCertificate(der []byte) (Digest, error) {
	if len(der) == 0 || len(der) > maxIdentityCertificate {
		return Digest{}, fmt.Errorf(
			"identity certificate of %d bytes; it must have 1 to %d",
			len(der),
			maxIdentityCertificate,
		)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Digest{}, fmt.Errorf("identity certificate cannot be read: %w", err)
	}
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return Digest{}, fmt.Errorf("identity certificate has a %T, not a P-256 key", c.PublicKey)
	}
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		return Digest{}, fmt.Errorf("identity certificate is not signed by its own key: %w", err)
	}
	return digestOf(c), nil
}

// Short abbreviates a digest for messages.
func Short(d Digest) string { return hex.EncodeToString(d[:8]) }
