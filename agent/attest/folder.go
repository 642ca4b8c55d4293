package attest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ententehq/entente/registration/agenttoken"
)

const (
	keyFile   = "agent.key"
	stateFile = "agent.json"
	maxFile   = 1 << 20
)

// state is what the agent keeps of the cluster. The SPIFFE ID is empty until it was attested.
type state struct {
	SPIFFEID string `json:"spiffe_id"`
	// Servers are the members that the cluster has named last.
	Servers []agenttoken.Server `json:"servers"`
	// Token is the ID of the token with which the agent was attested. Its members are not used again.
	Token string `json:"token,omitempty"`
}

// loadKey returns the key in a folder, and makes one if there is none. The folder is made too.
func loadKey(dir string) (*ecdsa.PrivateKey, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the agent's key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the agent's key %s has mode %o, so that other users can read it: who has read it is "+
			"this "+
			"agent. Evict the agent, delete the file and attest it again", path, info.Mode().Perm())
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the agent's key: %w", err)
	}
	block, rest := pem.Decode(content)
	if block == nil || len(rest) > 0 {
		return nil, fmt.Errorf("the agent's key %s is not one PEM block: delete it and attest the agent again", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("the agent's key %s is not a P-256 key in PKCS #8: delete it and attest the agent again",
			path)
	}
	return key, nil
}

func makeKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the agent's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the agent's key: %w", err)
	}
	return key, WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// WriteFile replaces a file, so that a reader finds the old or the new content. It is on the disk when it returns.
func WriteFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone after the rename
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func loadState(dir string) (s state, err error) {
	path := filepath.Join(dir, stateFile)
	content, err := readBounded(path, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state{}, nil
	case err != nil:
		return state{}, fmt.Errorf("read the agent's state: %w", err)
	case len(content) > maxFile:
		return state{}, fmt.Errorf("the agent's state %s has %d bytes: it is damaged", path, len(content))
	}
	if err := json.Unmarshal(content, &s); err != nil {
		return state{}, fmt.Errorf("the agent's state %s is damaged (%w): delete it and attest the agent with a token",
			path, err)
	}
	return s, nil
}

// readBounded reads a file, and at most one byte more than limit.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

func (s state) save(dir string) error {
	content, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode the agent's state: %w", err)
	}
	return WriteFile(filepath.Join(dir, stateFile), content)
}
