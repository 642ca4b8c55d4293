package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/ententehq/entente/internal/secretdir"
)

// Suffix is the file name extension of a key.
const Suffix = ".pem"

// Folder is a [Store] on disk: one PEM file for each private key, readable by its owner only, and encrypted if the
// folder has an [Encryption]. Until [Folder.Unlock] has succeeded, the keys of an encrypted folder are listed and
// have their public halves, but do not sign, and none can be created.
type Folder struct {
	dir        string
	encryption *Encryption // nil if keys are stored in the clear
	changed    chan struct{}

	// writing is held while a file is replaced or deleted, so that a rewrite never brings a deleted key back.
	writing sync.Mutex

	mu      sync.Mutex
	dataKey *dataKey                     // nil while locked
	locked  error                        // why the data key is not unwrapped
	keys    map[string]*ecdsa.PrivateKey // by file name without suffix
}

var _ Store = (*Folder)(nil)

// OpenFolder opens the folder, and creates it if it does not exist. A folder that others can reach, or that belongs to
// another user, is refused, and one whose keys are encrypted.
func OpenFolder(dir string) (*Folder, error) { return openFolder(dir, nil) }

// OpenEncryptedFolder opens a folder as [OpenFolder] does. Its keys are locked until [Folder.Unlock] has succeeded.
func OpenEncryptedFolder(dir string, encryption Encryption) (*Folder, error) {
	return openFolder(dir, &encryption)
}

func openFolder(dir string, encryption *Encryption) (*Folder, error) {
	if err := secretdir.Make("key folder", dir); err != nil {
		return nil, err
	}
	if err := removeUnfinished(dir); err != nil {
		return nil, err
	}
	f, err := readDataKey(dir)
	if err != nil {
		return nil, err
	}
	if f != nil && encryption == nil {
		return nil, fmt.Errorf("the keys in %s are encrypted, with a data key that %s wrapped; configure that "+
			"encryption, or delete the folder: the member then prepares new authorities", dir, f.WrappedBy)
	}
	return &Folder{
		dir: dir, encryption: encryption, changed: make(chan struct{}, 1), keys: map[string]*ecdsa.PrivateKey{},
		locked: errors.New("no attempt to unwrap their data key has ended yet"),
	}, nil
}

// removeUnfinished removes files that a stopped process has not completed. They can hold keys in the clear.
func removeUnfinished(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, UnfinishedPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove an unfinished file: %w", err)
		}
	}
	return nil
}

// Unlock makes one attempt to unwrap the data key of an encrypted folder, and then stores every key as the encryption
// requires: it encrypts those in the clear, or decrypts them all. Each file is replaced in one step, so that it can be
// interrupted at any time. The error wraps [ErrLocked] if a later attempt can succeed. Unlocking an unlocked folder
// wraps its data key again.
func (f *Folder) Unlock(ctx context.Context) error {
	e := f.encryption
	if e == nil {
		return nil
	}
	if e.Off {
		if file, err := readDataKey(f.dir); err != nil || file == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.locked = nil
			return err
		}
	}
	f.mu.Lock()
	known := f.dataKey
	f.mu.Unlock()
	key, err := e.unwrap(ctx, f.dir, known)
	f.mu.Lock()
	if err != nil {
		defer f.mu.Unlock()
		if f.dataKey == nil {
			f.locked = err
		}
		return err
	}
	f.dataKey, f.locked = key, nil
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
	return f.rewrite(ctx)
}

// Locked returns why the keys of the folder cannot be used, or nil.
func (f *Folder) Locked() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.encrypts() && f.dataKey == nil {
		return f.locked
	}
	return nil
}

// encrypts reports whether new keys are stored encrypted.
func (f *Folder) encrypts() bool { return f.encryption != nil && !f.encryption.Off }

// Changed signals that the folder was unlocked.
func (f *Folder) Changed() <-chan struct{} { return f.changed }

// rewrite stores every key as the encryption requires. A file that cannot be read is left as it is.
func (f *Folder) rewrite(ctx context.Context) error {
	names, err := f.Names(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, f.rewriteKey(name))
	}
	errs = append(errs, f.rewriteSecrets())
	if err := errors.Join(errs...); err != nil || !f.encryption.Off {
		return err
	}
	if err := os.Remove(filepath.Join(f.dir, dataKeyName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the data key, which encrypts nothing any more: %w", err)
	}
	return SyncFolder(f.dir)
}

func (f *Folder) rewriteKey(name string) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	file, err := f.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // it was deleted meanwhile
	case err != nil:
		if f.encryption.Off {
			return err // its data key has to stay
		}
		return nil // its authority is replaced, as without encryption
	case (file.sealed != nil) == f.encrypts():
		return nil
	}
	f.mu.Lock()
	key, err := f.open(name, file)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.put(name, key, file.certificate)
}

// Create implements [Store]. The key is on disk when it returns.
func (f *Folder) Create(_ context.Context, name string) (crypto.Signer, error) {
	if err := f.Locked(); err != nil {
		return nil, fmt.Errorf("make key %s: %w", name, err)
	}
	key, err := Generate()
	if err != nil {
		return nil, err
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	return key, f.put(name, key, nil)
}

// put writes a key, with its certificate unless that is nil. The caller holds f.writing.
func (f *Folder) put(name string, key *ecdsa.PrivateKey, certificate *x509.Certificate) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key %s: %w", name, err)
	}
	file := keyFile{private: der, public: &key.PublicKey, certificate: certificate}
	if f.encrypts() {
		spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			return fmt.Errorf("encode key %s: %w", name, err)
		}
		f.mu.Lock()
		dataKey := f.dataKey
		f.mu.Unlock()
		file.private, file.dataKey = nil, dataKey.id
		file.sealed = dataKey.aead.Seal(nil, nil, der, f.encryption.boundKey(dataKey.id, name, spki))
	}
	content, err := file.marshal()
	if err == nil {
		err = WriteDurably(f.dir, name+Suffix, content)
	}
	if err != nil {
		return fmt.Errorf("write key %s: %w", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys[name] = key
	return nil
}

// Certify implements [Store]: key and certificate are in one file, which is replaced in one step.
func (f *Folder) Certify(_ context.Context, name string, certificate *x509.Certificate) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	key, err := f.private(name)
	if err != nil {
		return err
	}
	return f.put(name, key, certificate)
}

// Certificate implements [Store].
func (f *Folder) Certificate(name string) (*x509.Certificate, error) {
	file, err := f.read(name)
	return file.certificate, err
}

// Signer implements [Store]. While the folder is locked, the signer of an encrypted key has its public half, and signs
// as soon as the folder is unlocked.
func (f *Folder) Signer(name string) (crypto.Signer, error) {
	key, err := f.private(name)
	if !errors.Is(err, ErrLocked) {
		if err != nil {
			return nil, err
		}
		return key, nil
	}
	file, err := f.read(name)
	if err != nil {
		return nil, err
	}
	return &lockedKey{folder: f, name: name, public: file.public}, nil
}

// private returns a private key. The error wraps [ErrLocked] if it is encrypted and the folder is locked.
func (f *Folder) private(name string) (*ecdsa.PrivateKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if key, ok := f.keys[name]; ok {
		return key, nil
	}
	file, err := f.read(name)
	if err != nil {
		return nil, err
	}
	key, err := f.open(name, file)
	if err != nil {
		return nil, err
	}
	f.keys[name] = key
	return key, nil
}

// open returns the private key of a file. The caller holds f.mu.
func (f *Folder) open(name string, file keyFile) (*ecdsa.PrivateKey, error) {
	if file.sealed == nil {
		return parsePrivate(file.private)
	}
	dataKey, locked := f.dataKey, f.locked
	path := filepath.Join(f.dir, name+Suffix)
	switch {
	case f.encryption == nil || (dataKey == nil && locked == nil):
		return nil, fmt.Errorf("key file %s is encrypted, and its data key is gone", path)
	case dataKey == nil:
		return nil, fmt.Errorf("use key %s: %w", name, lockedBy(locked))
	case dataKey.id != file.dataKey:
		return nil, fmt.Errorf("key file %s is encrypted with the data key %s, and the folder has %s", path,
			file.dataKey, dataKey.id)
	}
	spki, err := x509.MarshalPKIXPublicKey(file.public)
	if err != nil {
		return nil, err
	}
	der, err := dataKey.aead.Open(nil, nil, file.sealed, f.encryption.boundKey(dataKey.id, name, spki))
	if err != nil {
		return nil, fmt.Errorf("key file %s does not decrypt: it was altered, or is the file of another key or "+
			"member; restore it from a copy, or delete it: the member then prepares new authorities", path)
	}
	key, err := parsePrivate(der)
	if err == nil && !key.PublicKey.Equal(file.public) {
		err = errors.New("its public key belongs to another key")
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}

// read reads a key file.
func (f *Folder) read(name string) (keyFile, error) {
	path := filepath.Join(f.dir, name+Suffix)
	info, err := os.Stat(path)
	if err != nil {
		return keyFile{}, fmt.Errorf("read key %s: %w", name, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return keyFile{}, fmt.Errorf(
			"key file %s has mode %04o, so that others can read it; run chmod 0600 %s, or delete it if somebody "+
				"may have",
			path, mode, path)
	}
	if info.Size() > maxFile {
		return keyFile{}, fmt.Errorf("key file %s has %d bytes, which is no key", path, info.Size())
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return keyFile{}, fmt.Errorf("read key %s: %w", name, err)
	}
	file, err := parseFile(content)
	if err != nil {
		return keyFile{}, fmt.Errorf("key file %s: %w; restore it from a copy, or delete it: the member then prepares "+
			"new authorities", path, err)
	}
	return file, nil
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
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.keys, name)
	if err := os.Remove(filepath.Join(f.dir, name+Suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete key %s: %w", name, err)
	}
	return SyncFolder(f.dir)
}

// lockedKey is a key of a folder that was locked when it was read.
type lockedKey struct {
	folder *Folder
	name   string
	public *ecdsa.PublicKey
}

var _ crypto.Signer = (*lockedKey)(nil)

// Public returns the public half in the file, which is authenticated when the folder is unlocked.
func (k *lockedKey) Public() crypto.PublicKey { return k.public }

// Sign signs once the folder is unlocked. Until then its error wraps [ErrLocked].
func (k *lockedKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	key, err := k.folder.private(k.name)
	if err != nil {
		return nil, err
	}
	return key.Sign(rand, digest, opts)
}
