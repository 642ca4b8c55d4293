package transit

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/internal/secretdir"
	"github.com/ententehq/entente/vaultca/vault"
)

// The states of an entry of the index.
const (
	stateMaking = "making" // the key is being made in Vault, or about to be
	stateReady  = "ready"
	stateDoomed = "doomed" // it is to be deleted in Vault
)

// entry is the record of a key in Transit on this machine. Nothing in it is secret.
type entry struct {
	Name   string
	Mount  string
	Key    string // its name in the mount
	Number uint64 // later entries have higher ones
	State  string
	// Public is the pinned public half. It is nil while the key is being made, and after a failure to make it.
	Public *ecdsa.PublicKey
	// Certificate is that of a root, nil if the key has none.
	Certificate *x509.Certificate
}

// file returns the name of its file: the part of the key's name that differs within a member.
func (e entry) file() string {
	_, own, _ := strings.Cut(e.Key, keyWord)
	return own + entrySuffix
}

// entryFile is the form of an entry on disk.
type entryFile struct {
	Name        string `json:"name"`
	Mount       string `json:"mount"`
	Key         string `json:"key"`
	Number      uint64 `json:"number"`
	State       string `json:"state"`
	PublicKey   []byte `json:"public_key,omitempty"`  // PKIX, DER
	Certificate []byte `json:"certificate,omitempty"` // DER
}

const (
	entrySuffix = ".json"
	// maxEntry is far above any entry.
	maxEntry = 64 << 10
)

// index is the folder of entries, a file each.
type index struct {
	dir    string
	number atomic.Uint64
}

func openIndex(dir string) (*index, error) {
	if err := secretdir.Make("folder for the index of keys", dir); err != nil {
		return nil, err
	}
	return &index{dir: dir}, nil
}

// next returns the number of a new entry.
func (x *index) next() uint64 { return x.number.Add(1) }

// all returns the entries in the order of their numbers, and an error for each unreadable one. It removes the rests of
// unfinished writes.
func (x *index) all() (entries []entry, unreadable []error, err error) {
	files, err := os.ReadDir(x.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list the index of keys: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(x.dir, f.Name())
		if strings.HasPrefix(f.Name(), keys.UnfinishedPrefix) {
			err = errors.Join(err, os.Remove(path))
			continue
		}
		if !strings.HasSuffix(f.Name(), entrySuffix) || !f.Type().IsRegular() {
			continue
		}
		e, readErr := readEntry(path)
		if readErr != nil {
			unreadable = append(unreadable, readErr)
			continue
		}
		entries = append(entries, e)
	}
	slices.SortFunc(
		entries,
		func(a, b entry) int { return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Key, b.Key)) },
	)
	if len(entries) > 0 {
		x.number.Store(entries[len(entries)-1].Number)
	}
	return entries, unreadable, err
}

func readEntry(path string) (entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return entry{}, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxEntry+1))
	if err != nil {
		return entry{}, err
	}
	e, err := parseEntry(raw)
	if err == nil && e.file() != filepath.Base(path) {
		err = fmt.Errorf("it is the entry of key %s", e.Key)
	}
	if err != nil {
		return entry{}, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

// parseEntry parses the form that [index.put] writes.
func parseEntry(raw []byte) (entry, error) {
	if len(raw) > maxEntry {
		return entry{}, fmt.Errorf("it is larger than %d bytes", maxEntry)
	}
	var f entryFile
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		return entry{}, fmt.Errorf("it is no entry: %w", err)
	}
	if decoder.More() {
		return entry{}, errors.New("it holds more than an entry")
	}
	e := entry{Name: f.Name, Mount: f.Mount, Key: f.Key, Number: f.Number, State: f.State}
	if !localName.MatchString(e.Name) || !keyPattern.MatchString(e.Key) || !strings.Contains(e.Key, keyWord) {
		return entry{}, fmt.Errorf("it names a key that cannot be, %q (%q)", e.Name, e.Key)
	}
	if err := vault.CheckPath("mount", e.Mount); err != nil {
		return entry{}, err
	}
	if !slices.Contains([]string{stateMaking, stateReady, stateDoomed}, e.State) {
		return entry{}, fmt.Errorf("it has the unknown state %q", e.State)
	}
	var err error
	if len(f.PublicKey) > 0 {
		if e.Public, err = parsePublic(f.PublicKey); err != nil {
			return entry{}, err
		}
	} else if e.State == stateReady {
		return entry{}, errors.New("it has no public key")
	}
	if len(f.Certificate) > 0 {
		if e.Certificate, err = x509.ParseCertificate(f.Certificate); err != nil {
			return entry{}, fmt.Errorf("its certificate cannot be read: %w", err)
		}
		if e.Public == nil || !e.Public.Equal(e.Certificate.PublicKey) {
			return entry{}, errors.New("its certificate belongs to another key")
		}
	}
	return e, nil
}

// parsePublic reads a public key on P-256.
func parsePublic(der []byte) (*ecdsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("the public key cannot be read: %w", err)
	}
	public, ok := parsed.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("the public key is not on P-256")
	}
	return public, nil
}

func (e entry) marshal() ([]byte, error) {
	f := entryFile{Name: e.Name, Mount: e.Mount, Key: e.Key, Number: e.Number, State: e.State}
	var err error
	if e.Public != nil {
		if f.PublicKey, err = x509.MarshalPKIXPublicKey(e.Public); err != nil {
			return nil, err
		}
	}
	if e.Certificate != nil {
		f.Certificate = e.Certificate.Raw
	}
	return json.Marshal(f)
}

// put replaces the entry of a key atomically. It is on disk when put returns.
func (x *index) put(e entry) error {
	content, err := e.marshal()
	if err == nil {
		err = keys.WriteDurably(x.dir, e.file(), content)
	}
	if err != nil {
		return fmt.Errorf("write the index entry of key %s: %w", e.Key, err)
	}
	return nil
}

func (x *index) remove(e entry) error {
	if err := os.Remove(filepath.Join(x.dir, e.file())); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the index entry of key %s: %w", e.Key, err)
	}
	return keys.SyncFolder(x.dir)
}
