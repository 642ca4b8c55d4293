package agent

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ententehq/entente/agent/attest"
)

const (
	sealedFile = "cache.sealed"
	sealedInfo = "entente agent cache 1"
	saltBytes  = 16
	// minKeyBytes is what the key file has at least: of a random file, as many bits as the cipher.
	minKeyBytes = 32
	maxSealed   = 256 << 20
)

// sealedCache is a file in the data folder, encrypted by a key that is elsewhere: who copies the folder alone has no
// identity of a workload.
type sealedCache struct {
	path    string
	keyFile string
}

// newSealedCache verifies that the key is outside of the data folder, and that no other user can read it.
func newSealedCache(dataDir, keyFile string) (*sealedCache, error) {
	s := &sealedCache{path: filepath.Join(dataDir, sealedFile), keyFile: keyFile}
	if _, err := s.secret(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	dir, err := filepath.EvalSymlinks(dataDir)
	if err != nil {
		return nil, fmt.Errorf("find the data folder: %w", err)
	}
	key, err := filepath.EvalSymlinks(keyFile)
	if err != nil {
		return nil, fmt.Errorf("find cache_key_file: %w", err)
	}
	if to, err := filepath.Rel(dir, key); err == nil && filepath.IsLocal(to) {
		return nil, fmt.Errorf("cache_key_file %s is in data_dir: who copies that folder would have both; put the key "+
			"elsewhere, such as into a credential of systemd", keyFile)
	}
	return s, nil
}

func (s *sealedCache) secret() ([]byte, error) {
	info, err := os.Stat(s.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read cache_key_file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("cache_key_file %s has mode %o, so that other users can read it: make it 0600, with "+
			"new content", s.keyFile, info.Mode().Perm())
	}
	secret, err := os.ReadFile(s.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read cache_key_file: %w", err)
	}
	if len(secret) < minKeyBytes {
		return nil, fmt.Errorf("cache_key_file %s has %d bytes: it has %d random ones at least, such as of 'head -c "+
			"32 /dev/urandom'", s.keyFile, len(secret), minKeyBytes)
	}
	return secret, nil
}

func (s *sealedCache) cipher(salt []byte) (cipher.AEAD, error) {
	secret, err := s.secret()
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, secret, salt, sealedInfo, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// save encrypts content for one agent and writes it.
func (s *sealedCache) save(content, agent []byte) error {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	aead, err := s.cipher(salt)
	if err != nil {
		return err
	}
	return attest.WriteFile(s.path, aead.Seal(salt, nil, content, agent))
}

// remove deletes what was saved.
func (s *sealedCache) remove() error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete the stored cache: %w", err)
	}
	return nil
}

// load returns what was saved for an agent, or nil if nothing was.
func (s *sealedCache) load(agent []byte) ([]byte, error) {
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the stored cache: %w", err)
	}
	if info.Size() < saltBytes || info.Size() > maxSealed {
		return nil, fmt.Errorf("the stored cache %s has %d bytes: it is damaged", s.path, info.Size())
	}
	content, err := os.ReadFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("read the stored cache: %w", err)
	}
	aead, err := s.cipher(content[:saltBytes])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, content[saltBytes:], agent)
	if err != nil {
		return nil, fmt.Errorf("the stored cache %s is of another key or another agent, or it was changed", s.path)
	}
	return plain, nil
}
