package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// openFiles opens what the member keeps in its data folder beside the store: the audit log and the identity key.
func openFiles(m *member) (err error) {
	if m.dir, err = openDataDir(m.cfg.Member.DataDir); err != nil {
		return err
	}
	m.life.OnStop("data folder", m.dir.close)
	m.audit, err = audit.Open(audit.Config{
		Path: m.dir.file("audit.log"), Member: m.cfg.Member.ID, Logger: m.log.Named("audit"), Registerer: m.registry,
	})
	if err != nil {
		return err
	}
	m.life.OnStop("audit log", m.audit.Close)
	m.identity, err = memberid.LoadIdentity(m.dir.file("identity.pem"))
	return err
}

// dataDir is a member's data folder. One process holds it at a time.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir creates the folder (mode 0700) if it is missing, and locks it. The kernel releases the lock when the
// process ends.
func openDataDir(path string) (*dataDir, error) {
	const remedy = "set member.data_dir to a folder that this user can write"
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w; %s", err, remedy)
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
	return &dataDir{path: path, lock: f}, nil
}

// file returns the path of a file or folder in the data folder.
func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// close releases the lock.
func (d *dataDir) close() error { return d.lock.Close() }
