package keys

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Encryption is how the private keys in a [Folder] are encrypted: by a data key of the folder, which a wrapping key
// encrypts in turn. Each ciphertext is bound to Domain, Member and the name of its key.
type Encryption struct {
	// Domain is the home trust domain of the cluster, Member the id of the member that owns the folder.
	Domain, Member string
	// Wrappers are the wrapping keys. The first one wraps; the others only unwrap what they wrapped before.
	Wrappers []Wrapper
	// Off decrypts the folder: Wrappers unwrap the data key, and all keys are stored in the clear.
	Off bool
}

// ErrLocked is wrapped while the data key of a folder cannot be unwrapped.
var ErrLocked = errors.New("the signing keys of this member are locked")

// ErrWrongKey is wrapped if no configured wrapping key opens the data key. Trying again does not help.
var ErrWrongKey = errors.New("the wrapping key is not the one of the data key")

// dataKeyName is the file of the wrapped data key in the key folder.
const dataKeyName = "data-key.json"

// maxDataKeyFile is far above the size of any such file.
const maxDataKeyFile = 16 << 10

// dataKeyFile is the form of the data key on disk.
type dataKeyFile struct {
	ID        string `json:"id"`
	WrappedBy string `json:"wrapped_by"` // the ID of a Wrapper
	Wrapped   []byte `json:"wrapped"`
}

// dataKey is an unwrapped data key.
type dataKey struct {
	id   string
	raw  []byte
	aead cipher.AEAD
}

// bind joins parts so that no two lists of parts are equal.
func bind(parts ...string) []byte {
	var out []byte
	for _, p := range parts {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p))) //nolint:gosec // G115: names and keys are short
		out = append(out, p...)
	}
	return out
}

func (e *Encryption) boundDataKey(id string) []byte {
	return bind("entente data key 1", e.Domain, e.Member, id)
}

// boundKey binds a private key to its owner, its name and its public half (PKIX).
func (e *Encryption) boundKey(dataKey, name string, spki []byte) []byte {
	return bind("entente signing key 1", e.Domain, e.Member, dataKey, name, string(spki))
}

// readDataKey returns the data key file of a folder, or nil if there is none.
func readDataKey(dir string) (*dataKeyFile, error) {
	path := filepath.Join(dir, dataKeyName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the data key: %w", err)
	}
	damaged := func(what string) (*dataKeyFile, error) {
		return nil, fmt.Errorf("the data key %s is damaged: %s; restore it from a copy of this folder, or delete the "+
			"folder: the member then prepares new authorities", path, what)
	}
	if info.Size() > maxDataKeyFile {
		return damaged(fmt.Sprintf("it has %d bytes", info.Size()))
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the data key: %w", err)
	}
	var f dataKeyFile
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	switch err := decoder.Decode(&f); {
	case err != nil:
		return damaged(err.Error())
	case decoder.More() || f.ID == "" || f.WrappedBy == "" || len(f.Wrapped) == 0:
		return damaged("it does not hold exactly one wrapped key")
	}
	return &f, nil
}

func (f *dataKeyFile) write(dir string) error {
	raw, err := json.Marshal(f)
	if err == nil {
		err = WriteDurably(dir, dataKeyName, append(raw, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write the data key: %w", err)
	}
	return nil
}

// unwrap returns the data key of the folder. It makes one if there is none, and wraps it again if its wrapping key is
// not the first one, or is remote. Nothing is lost when it is interrupted: the file is replaced in one step. known is
// the data key if the folder is unlocked already, or nil.
func (e *Encryption) unwrap(ctx context.Context, dir string, known *dataKey) (*dataKey, error) {
	f, err := readDataKey(dir)
	if err != nil {
		return nil, err
	}
	var key []byte
	switch {
	case known != nil:
		key = known.raw
		if f == nil {
			f = &dataKeyFile{ID: known.id} // it was removed meanwhile
		}
	case f == nil:
		key = make([]byte, keySize)
		var id [8]byte
		_, _ = rand.Read(key) // it never fails: crypto/rand ends the program instead
		_, _ = rand.Read(id[:])
		f = &dataKeyFile{ID: hex.EncodeToString(id[:])}
	default:
		if key, err = e.open(ctx, dir, f); err != nil {
			return nil, err
		}
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, fmt.Errorf("use the data key: %w", err)
	}
	if first := e.Wrappers[0]; !e.Off && (first.Remote() || f.WrappedBy != first.ID()) {
		wrapped, err := first.Wrap(ctx, key, e.boundDataKey(f.ID))
		if err != nil {
			if f.WrappedBy == first.ID() {
				return &dataKey{f.ID, key, aead}, nil // it is wrapped already, and another version can wait
			}
			return nil, fmt.Errorf("%w: wrap their data key with %s: %w", ErrLocked, first.ID(), err)
		}
		f.WrappedBy, f.Wrapped = first.ID(), wrapped
		if err := f.write(dir); err != nil {
			return nil, err
		}
	}
	return &dataKey{f.ID, key, aead}, nil
}

// open unwraps a data key.
func (e *Encryption) open(ctx context.Context, dir string, f *dataKeyFile) ([]byte, error) {
	i := slices.IndexFunc(e.Wrappers, func(w Wrapper) bool { return w.ID() == f.WrappedBy })
	if i < 0 {
		return nil, fmt.Errorf("%w: %s was wrapped with %s; add an encryption block with that key, or delete the "+
			"folder %s: the member then prepares new authorities", ErrWrongKey,
			filepath.Join(dir, dataKeyName), f.WrappedBy, dir)
	}
	key, err := e.Wrappers[i].Unwrap(ctx, f.Wrapped, e.boundDataKey(f.ID))
	if err != nil && !e.Wrappers[i].Remote() {
		return nil, fmt.Errorf("%w: %s does not open with %s: %w; restore it from a copy, or delete the folder %s: "+
			"the member then prepares new authorities", ErrWrongKey, filepath.Join(dir, dataKeyName),
			f.WrappedBy, err, dir)
	}
	if err == nil && len(key) != keySize {
		err = fmt.Errorf("what it contains has %d bytes", len(key))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: unwrap their data key with %s: %w", ErrLocked, f.WrappedBy, err)
	}
	return key, nil
}
