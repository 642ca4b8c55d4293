package publish

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	// manifestName is the file with the names of the files that a folder wrote.
	manifestName = ".entente-manifest.json"
	lockName     = ".entente-lock"
	tempPrefix   = ".entente-temp-"

	fileMode, folderMode = 0o644, 0o755
	// maxManifestBytes bounds the manifest: the names of three files for each of 20,000 domains.
	maxManifestBytes = 32 << 20
)

// ErrForeignFile refuses to replace a file that the folder did not write.
var ErrForeignFile = errors.New("the file exists and was not written by Entente")

// Folder writes objects as files of a folder. Each file appears as a whole or not at all, and is on disk when
// [Folder.Write] returns. The names of what it wrote are in a manifest, which is on disk before the files are: a
// process that is killed leaves no file that a later one would not remove. It is not safe for concurrent use.
type Folder struct {
	root      *os.Root
	path      string
	announces bool
	lock      *os.File
	manifest  manifest
}

// manifest is what a folder keeps about itself.
type manifest struct {
	// Files are the names of the files that it wrote, in order.
	Files []string `json:"files"`
	// Unannounced means that files changed, and that [Folder.Announced] was not called since.
	Unannounced bool `json:"unannounced,omitempty"`
}

// Change is what a write changed in a store, by name.
type Change struct {
	Written, Removed []string
}

// Empty reports whether nothing changed.
func (c Change) Empty() bool { return len(c.Written)+len(c.Removed) == 0 }

// OpenFolder opens a folder, and makes it if it does not exist. It fails if another process has it open. If announces
// is true, the folder records that files changed until [Folder.Announced] is called.
func OpenFolder(path string, announces bool) (_ *Folder, err error) {
	if err := os.MkdirAll(path, folderMode); err != nil {
		return nil, fmt.Errorf("make the folder: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the folder: %w", err)
	}
	f := &Folder{root: root, path: path, announces: announces}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.lock, err = root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("open the lock of the folder: %w", err)
	}
	if err := syscall.Flock(int(f.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another process writes bundles into %s; give each a folder of its own", path)
	}
	if f.manifest, err = f.readManifest(); err != nil {
		return nil, err
	}
	if err := f.sweep(); err != nil {
		return nil, err
	}
	return f, nil
}

// Close lets another process open the folder. The files stay.
func (f *Folder) Close() error {
	err := f.root.Close()
	if f.lock != nil {
		err = errors.Join(err, f.lock.Close())
	}
	return err
}

// Unannounced reports whether files changed, by this process or one before it, without a call of [Folder.Announced].
func (f *Folder) Unannounced() bool { return f.announces && f.manifest.Unannounced }

// Announced records that the readers of the folder know of its present files.
func (f *Folder) Announced() error {
	if !f.manifest.Unannounced {
		return nil
	}
	return f.keep(manifest{Files: f.manifest.Files})
}

// Write makes the folder hold the objects, and none of the files that it wrote before and that are not among them. What
// is to be removed is removed first. A file that cannot be changed is named by the error and delays no other one.
func (f *Folder) Write(objects []Object) (change Change, failed error) {
	wanted := make(map[string]bool, len(objects))
	for _, o := range objects {
		wanted[o.Name] = true
	}
	held := make(map[string]bool, len(f.manifest.Files))
	for _, name := range f.manifest.Files {
		held[name] = true
	}
	for _, name := range f.manifest.Files {
		if wanted[name] {
			continue
		}
		err := f.root.Remove(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, fmt.Errorf("remove %s: %w", filepath.Join(f.path, name), cause(err)))
			continue
		}
		delete(held, name)
		change.Removed = append(change.Removed, name)
	}
	var changed []Object
	for _, o := range objects {
		same, exists, err := f.has(o)
		switch {
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("read %s: %w", filepath.Join(f.path, o.Name), cause(err)))
		case exists && !same && !held[o.Name]:
			failed = errors.Join(failed, fmt.Errorf("%s: %w; remove it, or use another folder",
				filepath.Join(f.path, o.Name), ErrForeignFile))
		case same:
			held[o.Name] = true
		default:
			held[o.Name] = true
			changed = append(changed, o)
		}
	}
	next := manifest{Files: slices.Sorted(maps.Keys(held))}
	if f.announces {
		next.Unannounced = f.manifest.Unannounced || len(changed) > 0 || !change.Empty()
	}
	if !slices.Equal(next.Files, f.manifest.Files) || next.Unannounced != f.manifest.Unannounced {
		if err := f.keep(next); err != nil {
			return change, errors.Join(failed, err)
		}
	}
	for _, o := range changed {
		if err := f.write(o.Name, fileMode, o.Body); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		change.Written = append(change.Written, o.Name)
	}
	if change.Empty() {
		return change, failed
	}
	return change, errors.Join(failed, f.sync())
}

// has reports whether the file of an object exists, and whether it has the object's bytes.
func (f *Folder) has(o Object) (same, exists bool, err error) {
	info, err := f.root.Lstat(o.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, false, nil
	case err != nil:
		return false, false, err
	case !info.Mode().IsRegular() || info.Size() != int64(len(o.Body)):
		return false, true, nil
	}
	body, err := f.root.ReadFile(o.Name)
	return err == nil && bytes.Equal(body, o.Body), true, err
}

// write replaces a file as a whole. It is on disk when write returns, its name once the folder is.
func (f *Folder) write(name string, mode os.FileMode, body []byte) (err error) {
	temp := tempPrefix + rand.Text()
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", filepath.Join(f.path, name), cause(err))
			_ = f.root.Remove(temp) // the next process that opens the folder removes it otherwise
		}
	}()
	to, err := f.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = to.Write(body)
	if err = errors.Join(err, to.Chmod(mode), to.Sync(), to.Close()); err != nil {
		return err
	}
	return f.root.Rename(temp, name)
}

// sync forces the names in the folder to disk.
func (f *Folder) sync() error {
	folder, err := f.root.Open(".")
	if err != nil {
		return fmt.Errorf("sync %s: %w", f.path, cause(err))
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func (f *Folder) keep(m manifest) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the manifest of %s: %w", f.path, err)
	}
	if err := f.write(manifestName, fileMode, append(body, '\n')); err != nil {
		return err
	}
	f.manifest = m
	return f.sync()
}

// readManifest reads the manifest. A name in it that no object has would remove a file of somebody else.
func (f *Folder) readManifest() (m manifest, err error) {
	refuse := func(err error) (manifest, error) {
		return manifest{}, fmt.Errorf(
			"the manifest %s cannot be used (%w): remove it, and the files of bundles beside it",
			filepath.Join(f.path, manifestName), cause(err),
		)
	}
	file, err := f.root.Open(manifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return manifest{}, nil
	}
	if err != nil {
		return refuse(err)
	}
	defer file.Close()
	body, err := io.ReadAll(io.LimitReader(file, maxManifestBytes))
	if err != nil {
		return refuse(err)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return refuse(err)
	}
	for _, name := range m.Files {
		if name != filepath.Base(name) || strings.HasPrefix(name, ".") ||
			!strings.HasSuffix(name, ".pem") && !strings.HasSuffix(name, ".json") {
			return refuse(fmt.Errorf("it names %q, which is no file of bundles", name))
		}
	}
	return m, nil
}

// sweep removes what a process that was killed left half written.
func (f *Folder) sweep() error {
	entries, err := fs.ReadDir(f.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("list %s: %w", f.path, cause(err))
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			err = errors.Join(err, f.root.Remove(e.Name()))
		}
	}
	return err
}

// cause returns the error of the operating system without the operation and the path.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
