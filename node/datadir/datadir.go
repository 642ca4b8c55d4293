// Package datadir has the layout of a member's data folder, and the lock that gives it to one process at a time.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ententehq/entente/internal/secretdir"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// The names of files and folders in a data folder.
const (
	// Identity is the identity key of the member.
	Identity = "identity.pem"
	// Raft is the folder of the store.
	Raft = "raft"
	// Members has the members of the cluster, for a member whose log is damaged, and where they are.
	Members = "members"
	// Seen has which later versions of hosted bundles peers have than this member.
	Seen = "seen"
)

// Folder is a member's data folder. One process holds it at a time.
type Folder struct {
	path string
	lock *os.File
}

// Open creates the folder (mode 0700) if it is missing, and locks it. A folder that others can reach, or that
// belongs to another user, is refused. The kernel releases the lock when the process ends.
func Open(path string) (*Folder, error) {
	const remedy = "set member.data_dir to a folder that this user can write"
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w; %s", err, remedy)
	}
	if err := secretdir.Check("data folder", path); err != nil {
		return nil, fmt.Errorf("%w, or set member.data_dir to a new folder below it", err)
	}
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w; %s", err, remedy)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data folder %s is in use by another entente server; "+
				"stop that one, or give this one a folder of its own", path)
		}
		return nil, fmt.Errorf("lock data folder %s: %w", path, err)
	}
	return &Folder{path: path, lock: f}, nil
}

// LoadIdentity loads the identity key, and makes one for a new member. A member that has lost its key is refused: with
// another one, the others would not recognize it.
func (d *Folder) LoadIdentity() (*memberid.Identity, error) {
	path := d.File(Identity)
	_, err := os.Stat(path)
	_, stored := os.Stat(d.File(Raft))
	if errors.Is(err, fs.ErrNotExist) && stored == nil {
		return nil, fmt.Errorf("identity key %s is missing, and its member has a log: restore it from a copy, or "+
			"remove this member from the cluster, empty its data folder and join again", path)
	}
	return memberid.LoadIdentity(path)
}

// File returns the path of a file or folder in the data folder.
func (d *Folder) File(name string) string { return filepath.Join(d.path, name) }

// Close releases the lock.
func (d *Folder) Close() error { return d.lock.Close() }
