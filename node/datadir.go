package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dataDir is a member's folder, held by one process at a time.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes the folder (mode 0700) where it is missing, and takes its lock. The lock goes with the process, however it ends.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w; set member.data_dir to a folder that this user can write", err)
	}
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w; set member.data_dir to a folder that this user can write", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data folder %s is in use by another entente server; stop that one, or give this one a folder of its own", path)
		}
		return nil, fmt.Errorf("lock data folder %s: %w", path, err)
	}
	return &dataDir{path: path, lock: f}, nil
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// close gives the lock back.
func (d *dataDir) close() error { return d.lock.Close() }
