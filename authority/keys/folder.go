package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// maxFile bounds the size of a key file. One with a root certificate beside the key has about 1,200 bytes.
const maxFile = 16 << 10

// Suffix is the file name extension of a key.
const Suffix = ".pem"

// Folder is a [Store] on disk: one PEM file for each private key, readable by its owner only.
type Folder struct {
	dir string

	mu   sync.Mutex
	keys map[string]crypto.Signer // by file name without suffix
}

// OpenFolder opens the folder, and creates it if it does not exist. A folder that others can read is refused.
func OpenFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the key folder: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the key folder: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf(
			"the key folder %s has mode %04o, so that others can reach the private keys in it; run chmod 0700 %s", dir,
			mode, dir)
	}
	return &Folder{dir: dir, keys: map[string]crypto.Signer{}}, nil
}

var _ Store = (*Folder)(nil)

// Create implements [Store]. The key is on disk when it returns.
func (f *Folder) Create(_ context.Context, name string) (crypto.Signer, error) {
	key, err := Generate()
	if err != nil {
		return nil, err
	}
	return key, f.put(name, key, nil)
}

// put writes a key, with its certificate unless that is nil.
func (f *Folder) put(name string, key crypto.Signer, certificate *x509.Certificate) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key %s: %w", name, err)
	}
	content := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if certificate != nil {
		content = append(content, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})...)
	}
	if err := WriteDurably(f.dir, name+Suffix, content); err != nil {
		return fmt.Errorf("write key %s: %w", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[name] = key
	return nil
}

// Certify implements [Store]: key and certificate are in one file, which is replaced in one step.
func (f *Folder) Certify(_ context.Context, name string, certificate *x509.Certificate) error {
	key, err := f.Signer(name)
	if err != nil {
		return err
	}
	return f.put(name, key, certificate)
}

// Certificate implements [Store].
func (f *Folder) Certificate(name string) (*x509.Certificate, error) {
	_, certificate, err := f.read(name)
	return certificate, err
}

// Signer implements [Store].
func (f *Folder) Signer(name string) (crypto.Signer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if key, ok := f.keys[name]; ok {
		return key, nil
	}
	key, _, err := f.read(name)
	if err != nil {
		return nil, err
	}
	f.keys[name] = key
	return key, nil
}

// read reads a key file, with the certificate in it if there is one.
func (f *Folder) read(name string) (crypto.Signer, *x509.Certificate, error) {
	path := filepath.Join(f.dir, name+Suffix)
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read key %s: %w", name, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, nil, fmt.Errorf(
			"key file %s has mode %04o, so that others can read it; run chmod 0600 %s, or delete it if somebody "+
				"may have",
			path, mode, path)
	}
	if info.Size() > maxFile {
		return nil, nil, fmt.Errorf("key file %s has %d bytes, which is no key", path, info.Size())
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read key %s: %w", name, err)
	}
	key, certificate, err := parseFile(content)
	if err != nil {
		return nil, nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, certificate, nil
}

// parseFile parses what put writes.
func parseFile(content []byte) (key crypto.Signer, certificate *x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		switch {
		case block.Type == "PRIVATE KEY" && key == nil:
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("its private key cannot be read: %w", err)
			}
			signer, ok := parsed.(*ecdsa.PrivateKey)
			if !ok || signer.Curve != elliptic.P256() {
				return nil, nil, errors.New("its private key is not on P-256")
			}
			key = signer
		case block.Type == "CERTIFICATE" && certificate == nil:
			if certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
				return nil, nil, fmt.Errorf("its certificate cannot be read: %w", err)
			}
		default:
			return nil, nil, fmt.Errorf("it holds an unexpected %q block", block.Type)
		}
	}
	switch {
	case key == nil:
		return nil, nil, errors.New("it holds no private key")
	case len(bytes.TrimSpace(content)) != 0:
		return nil, nil, errors.New("it holds more than PEM blocks")
	case certificate != nil && !key.(*ecdsa.PrivateKey).PublicKey.Equal(certificate.PublicKey):
		return nil, nil, errors.New("its certificate belongs to another key")
	}
	return key, certificate, nil
}

// Names implements [Store].
func (f *Folder) Names(context.Context) ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("list the key folder: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), Suffix); ok && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	return names, nil
}

// Delete implements [Store].
func (f *Folder) Delete(_ context.Context, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, name)
	if err := os.Remove(filepath.Join(f.dir, name+Suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete key %s: %w", name, err)
	}
	return SyncFolder(f.dir)
}
