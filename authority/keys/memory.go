package keys

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
)

// Memory is a [Store] whose keys end with the process and are never on a disk. A member that restarts prepares new
// authorities, and retires those whose keys it had; what they signed stays valid until it expires. A cluster whose
// members all stop at once has new anchors afterwards, which its peers have to fetch.
type Memory struct {
	mu   sync.RWMutex
	keys map[string]memoryKey
}

type memoryKey struct {
	signer      crypto.Signer
	certificate *x509.Certificate
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{keys: map[string]memoryKey{}} }

// Create implements [Store].
func (s *Memory) Create(_ context.Context, name string) (crypto.Signer, error) {
	key, err := Generate()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[name] = memoryKey{signer: key}
	return key, nil
}

func (s *Memory) get(name string) (memoryKey, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	key, ok := s.keys[name]
	if !ok {
		return memoryKey{}, fmt.Errorf("read key %s from memory: %w", name, fs.ErrNotExist)
	}
	return key, nil
}

// Signer implements [Store].
func (s *Memory) Signer(name string) (crypto.Signer, error) {
	key, err := s.get(name)
	return key.signer, err
}

// Certify implements [Store].
func (s *Memory) Certify(_ context.Context, name string, certificate *x509.Certificate) error {
	key, err := s.get(name)
	if err != nil {
		return err
	}
	key.certificate = certificate
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[name] = key
	return nil
}

// Certificate implements [Store].
func (s *Memory) Certificate(name string) (*x509.Certificate, error) {
	key, err := s.get(name)
	return key.certificate, err
}

// Names implements [Store].
func (s *Memory) Names(context.Context) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.keys)), nil
}

// Delete implements [Store].
func (s *Memory) Delete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, name)
	return nil
}
