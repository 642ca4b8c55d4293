package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SecretStore is implemented by a [Store] that also keeps short secrets which a member can replace at any time, as
// safely as its keys. Its methods are called from many goroutines.
type SecretStore interface {
	// SaveSecret replaces the secret of that name. The error wraps [ErrLocked] while nothing can be encrypted.
	SaveSecret(name string, secret []byte) error
	// LoadSecret returns the secret of that name. The error wraps [fs.ErrNotExist] if there is none, and [ErrLocked]
	// while it cannot be decrypted.
	LoadSecret(name string) ([]byte, error)
}

var _ SecretStore = (*Folder)(nil)

// secretSuffix is the file name extension of a secret.
const secretSuffix = ".secret"

// maxSecretFile bounds the size of a secret. Two SVIDs with long chains have some 10 KiB.
const maxSecretFile = 256 << 10

// secretFile is the content of the file of a secret. The file begins with its SHA-256.
type secretFile struct {
	DataKey string `json:"data_key,omitempty"` // the ID of the data key of Content; empty: it is in the clear
	Content []byte `json:"content"`
}

// boundSecret binds a secret to its owner and its name.
func (e *Encryption) boundSecret(dataKey, name string) []byte {
	return bind("entente secret 1", e.Domain, e.Member, dataKey, name)
}

// SaveSecret implements [SecretStore].
func (f *Folder) SaveSecret(name string, secret []byte) error {
	if err := f.Locked(); err != nil {
		return fmt.Errorf("save %s: %w", name, lockedBy(err))
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.putSecret(name, secret)
}

// lockedBy returns why a folder is locked, as an error that wraps [ErrLocked].
func lockedBy(err error) error {
	if errors.Is(err, ErrLocked) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrLocked, err)
}

// putSecret writes a secret. The caller holds f.writing.
func (f *Folder) putSecret(name string, secret []byte) error {
	file := secretFile{Content: secret}
	if f.encrypts() {
		f.mu.Lock()
		dataKey := f.dataKey
		f.mu.Unlock()
		file.DataKey = dataKey.id
		file.Content = dataKey.aead.Seal(nil, nil, secret, f.encryption.boundSecret(dataKey.id, name))
	}
	raw, err := json.Marshal(file)
	if err == nil {
		sum := sha256.Sum256(raw)
		err = WriteDurably(f.dir, name+secretSuffix, append(sum[:], raw...))
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return nil
}

// LoadSecret implements [SecretStore].
func (f *Folder) LoadSecret(name string) ([]byte, error) {
	file, err := f.readSecret(name)
	if err != nil || file.DataKey == "" {
		return file.Content, err
	}
	f.mu.Lock()
	dataKey, locked := f.dataKey, f.locked
	f.mu.Unlock()
	path := filepath.Join(f.dir, name+secretSuffix)
	switch {
	case f.encryption == nil:
		return nil, fmt.Errorf("%s is encrypted, and its data key is gone", path)
	case dataKey == nil:
		return nil, fmt.Errorf("load %s: %w", name, lockedBy(locked))
	}
	secret, err := dataKey.aead.Open(nil, nil, file.Content, f.encryption.boundSecret(file.DataKey, name))
	if err != nil || file.DataKey != dataKey.id {
		return nil, fmt.Errorf("%s does not decrypt: it was altered, or belongs to another data key or member", path)
	}
	return secret, nil
}

func (f *Folder) readSecret(name string) (file secretFile, err error) {
	path := filepath.Join(f.dir, name+secretSuffix)
	info, err := os.Stat(path)
	if err != nil {
		return file, fmt.Errorf("load %s: %w", name, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 || info.Size() > maxSecretFile {
		return file, fmt.Errorf("%s has mode %04o and %d bytes; a member writes neither", path, mode, info.Size())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return file, fmt.Errorf("load %s: %w", name, err)
	}
	sum, raw := raw[:min(sha256.Size, len(raw))], raw[min(sha256.Size, len(raw)):]
	if want := sha256.Sum256(raw); !bytes.Equal(sum, want[:]) {
		return file, fmt.Errorf("%s is damaged: its checksum does not match", path)
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return secretFile{}, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return file, nil
}

// rewriteSecrets stores every secret as the encryption requires. One that cannot be read is deleted: its owner makes
// another one.
func (f *Folder) rewriteSecrets() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return fmt.Errorf("list the key folder: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), secretSuffix); ok && e.Type().IsRegular() {
			errs = append(errs, f.rewriteSecret(name))
		}
	}
	return errors.Join(errs...)
}

func (f *Folder) rewriteSecret(name string) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	file, err := f.readSecret(name)
	if err == nil && (file.DataKey != "") == f.encrypts() {
		return nil
	}
	secret, err := f.LoadSecret(name)
	if err == nil {
		return f.putSecret(name, secret)
	}
	if err := os.Remove(filepath.Join(f.dir, name+secretSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}
