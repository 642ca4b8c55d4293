package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	folderPattern = "entente-demo-"
	// unlockedPattern is the name of a folder until it is locked, so that it is not mistaken for an abandoned one.
	unlockedPattern = "entente-new-demo-"
	lockName        = "lock"
)

// folder is the folder of a demo, locked while it runs.
type folder struct {
	path string
	lock *os.File
}

// newFolder makes a folder, and removes those of demos that were killed, which are not locked.
func newFolder() (*folder, error) {
	removeAbandoned(os.TempDir())
	fresh, err := os.MkdirTemp("", unlockedPattern)
	if err != nil {
		return nil, fmt.Errorf("make a folder for the demo: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(fresh, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	path := filepath.Join(filepath.Dir(fresh), folderPattern+strings.TrimPrefix(filepath.Base(fresh), unlockedPattern))
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		_ = os.RemoveAll(fresh)
		return nil, fmt.Errorf("lock the demo's folder: %w", err)
	}
	return &folder{path: path, lock: lock}, nil
}

func (f *folder) remove() {
	_ = os.RemoveAll(f.path)
	_ = f.lock.Close()
}

// removeAbandoned removes folders that are not locked. A folder that cannot be read or removed is left alone.
func removeAbandoned(dir string) {
	locks, err := filepath.Glob(filepath.Join(dir, folderPattern+"*", lockName))
	if err != nil {
		return
	}
	for _, name := range locks {
		lock, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(name))
		}
		_ = lock.Close()
	}
}
