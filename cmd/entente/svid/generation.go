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

// part is one of the files that belong together.
type part struct {
	name string
	mode os.FileMode
	data []byte
}

// Names in a folder of generations, as Kubernetes has them in its volumes: readers that know those (Envoy, gRPC) know these.
const (
	currentLink      = "..data"
	generationPrefix = "..generation-"
)

// writeGeneration makes files that belong together appear in a folder, all in one step: each name is a link through
// "..data", which is a link to a folder that holds one generation and is never changed. Who reads key and certificate through
// the folder that "..data" names gets both of one generation, or an error if it is replaced meanwhile, and never a mixture.
// What is of an earlier generation is deleted; so is what was left by one that was stopped under way.
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
	// Another process that writes here would take this generation for one that was left. The lock ends with the folder's descriptor.
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

// dropLinks deletes the names that led into a generation and are not among the parts of the present one.
func dropLinks(dir string, parts []part) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || target != filepath.Join(currentLink, e.Name()) || slices.ContainsFunc(parts, func(p part) bool { return p.name == e.Name() }) {
			continue
		}
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// fill makes a folder with the files in it. All of it is on the disk when it returns.
func fill(dir string, parts []part) error {
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // who may enter is up to the folder around it, and each file has its mode
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

// point makes a name in the folder a link to a target, in one step, whatever the name was before.
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

// sweepGenerations deletes all generations but one.
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
