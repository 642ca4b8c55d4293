package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxFile bounds the size of a key file. One with a root certificate beside the key has about 1,400 bytes.
const maxFile = 16 << 10

// The PEM blocks of a key file: a private key in the clear, or an encrypted one with its public half; then the
// certificate of a root.
const (
	privateBlock     = "PRIVATE KEY"
	sealedBlock      = "ENTENTE ENCRYPTED KEY"
	publicBlock      = "PUBLIC KEY"
	certificateBlock = "CERTIFICATE"
	// dataKeyHeader of a sealed block names its data key.
	dataKeyHeader = "Data-Key"
)

// keyFile is the content of a key file.
type keyFile struct {
	private     []byte // PKCS #8; nil if the key is encrypted
	sealed      []byte // the encrypted PKCS #8; nil if the key is in the clear
	dataKey     string // the ID of the data key of sealed
	public      *ecdsa.PublicKey
	certificate *x509.Certificate // nil if the key has none
}

func (f keyFile) marshal() ([]byte, error) {
	var out []byte
	if f.sealed == nil {
		out = pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: f.private})
	} else {
		spki, err := x509.MarshalPKIXPublicKey(f.public)
		if err != nil {
			return nil, err
		}
		out = append(
			pem.EncodeToMemory(&pem.Block{
				Type: sealedBlock, Headers: map[string]string{dataKeyHeader: f.dataKey}, Bytes: f.sealed,
			}),
			pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: spki})...)
	}
	if f.certificate != nil {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: f.certificate.Raw})...)
	}
	return out, nil
}

// parseFile parses what marshal writes, and nothing else, so that it notices each bit that flipped, but for those that
// decryption finds.
func parseFile(whole []byte) (f keyFile, err error) {
	content := whole
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		switch {
		case block.Type == privateBlock && f.private == nil && f.sealed == nil:
			key, err := parsePrivate(block.Bytes)
			if err != nil {
				return keyFile{}, err
			}
			f.private, f.public = block.Bytes, &key.PublicKey
		case block.Type == sealedBlock && f.private == nil && f.sealed == nil && len(block.Bytes) > 0:
			f.sealed, f.dataKey = block.Bytes, block.Headers[dataKeyHeader]
		case block.Type == publicBlock && f.sealed != nil && f.public == nil:
			parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return keyFile{}, fmt.Errorf("its public key cannot be read: %w", err)
			}
			var ok bool
			if f.public, ok = parsed.(*ecdsa.PublicKey); !ok || f.public.Curve != elliptic.P256() {
				return keyFile{}, errors.New("its public key is not on P-256")
			}
		case block.Type == certificateBlock && f.certificate == nil:
			if f.certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
				return keyFile{}, fmt.Errorf("its certificate cannot be read: %w", err)
			}
		default:
			return keyFile{}, fmt.Errorf("it holds an unexpected %q block", block.Type)
		}
	}
	switch {
	case f.private == nil && f.sealed == nil:
		return keyFile{}, errors.New("it holds no private key")
	case f.public == nil:
		return keyFile{}, errors.New("it holds no public key")
	case len(bytes.TrimSpace(content)) != 0:
		return keyFile{}, errors.New("it holds more than PEM blocks")
	case f.certificate != nil && !f.public.Equal(f.certificate.PublicKey):
		return keyFile{}, errors.New("its certificate belongs to another key")
	case f.certificate != nil && f.certificate.CheckSignature(
		f.certificate.SignatureAlgorithm, f.certificate.RawTBSCertificate, f.certificate.Signature) != nil:
		return keyFile{}, errors.New("it is damaged: its certificate is not signed by its key")
	}
	// The forms of a file have some freedom, of which nothing that is written makes use.
	if written, err := f.marshal(); err != nil || !bytes.Equal(written, whole) {
		return keyFile{}, errors.Join(err, errors.New("it is damaged: it is not what was written for this key"))
	}
	return f, nil
}

// parsePrivate parses a private key on P-256.
func parsePrivate(der []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("its private key cannot be read: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("its private key is not on P-256")
	}
	// Any number is a private key; it has its public half beside it, which the parser ignores.
	if written, err := x509.MarshalPKCS8PrivateKey(key); err != nil || !bytes.Equal(written, der) {
		return nil, errors.Join(err, errors.New("it is damaged: its private key and the public half do not match"))
	}
	return key, nil
}
