package svid

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ententehq/entente/cmd/entente/cli"
)

// part is one file of a generation.
type part struct {
	name string
	mode os.FileMode
	data []byte
}

// Names in a folder of generations, as in volumes of Kubernetes: readers that support those (Envoy, gRPC) support
// these.
const (
	currentLink      = "..data"
	generationPrefix = "..generation-"
)

// writeGeneration replaces the files of a folder in one step. Each name is a link through "..data", which is a link to
// a folder that holds one generation and never changes. A reader that resolves "..data" once gets the files of one
// generation, or an error if it is replaced meanwhile, and never a mixture. Earlier generations are deleted, and so are
// incomplete ones of a process that was killed.
func writeGeneration(dir string, parts []part) error {
	if err := changeGeneration(dir, parts); err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	return nil
}

func changeGeneration(dir string, parts []part) (err error) {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	// Another process that writes here would delete this generation as incomplete. The lock ends with the descriptor.
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil { //nolint:gosec // a descriptor is small
		return fmt.Errorf("lock: %w", err)
	}
	next := generationPrefix + rand.Text()
	if err := fill(filepath.Join(dir, next), parts); err != nil {
		return errors.Join(err, os.RemoveAll(filepath.Join(dir, next)))
	}
	if err := point(dir, currentLink, next); err != nil {
		return err
	}
	for _, p := range parts {
		if err := point(dir, p.name, filepath.Join(currentLink, p.name)); err != nil {
			return err
		}
	}
	if err := folder.Sync(); err != nil {
		return err
	}
	return errors.Join(dropLinks(dir, parts), sweepGenerations(dir, next))
}

// dropLinks deletes links of earlier generations that are not among the parts of the present one.
func dropLinks(dir string, parts []part) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || target != filepath.Join(currentLink, e.Name()) ||
			slices.ContainsFunc(parts, func(p part) bool { return p.name == e.Name() }) {
			continue
		}
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// fill makes a folder with files. They are on disk when it returns.
func fill(dir string, parts []part) error {
	// The folder around it limits access, and each file has its own mode.
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // see above
		return err
	}
	for _, p := range parts {
		err := cli.WriteFile(filepath.Join(dir, p.name), p.mode, func(to *os.File) error {
			_, err := to.Write(p.data)
			return err
		})
		if err != nil {
			return err
		}
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// point replaces a name in the folder by a link to a target, in one step.
func point(dir, name, target string) error {
	path := filepath.Join(dir, name)
	if is, err := os.Readlink(path); err == nil && is == target {
		return nil
	}
	fresh := filepath.Join(dir, generationPrefix+"link-"+rand.Text())
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return nil
}

// sweepGenerations deletes all generations except one.
func sweepGenerations(dir, keep string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), generationPrefix) || e.Name() == keep {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
