package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Space is the room on the file system of the data folder, for this user.
type Space struct{ Free, Total uint64 }

// Probe is how the health of a disk is found out. Tests of bad disks replace that of the folder.
type Probe interface {
	// Space returns the room that is left. A zero Total means that there is no limit.
	Space() (Space, error)
	// Touch writes a little to a file that exists, and syncs it.
	Touch() error
	// Room writes as much as the log needs to continue, syncs it, and removes it.
	Room() error
}

const (
	touchBytes = 4 << 10
	roomBytes  = 1 << 20
)

// folder probes the disk of a folder; without one there is none.
type folder struct{ dir string }

// Space implements Probe.
func (f folder) Space() (Space, error) {
	if f.dir == "" {
		return Space{}, nil
	}
	var s unix.Statfs_t
	if err := unix.Statfs(f.dir, &s); err != nil {
		return Space{}, fmt.Errorf("read the free space of %s: %w", f.dir, err)
	}
	block := uint64(s.Bsize) //nolint:gosec // a block size is positive
	// What is reserved for root does not count as available to this member, in the total either.
	return Space{Free: s.Bavail * block, Total: (s.Blocks - s.Bfree + s.Bavail) * block}, nil
}

// Touch implements Probe.
func (f folder) Touch() (err error) {
	if f.dir == "" {
		return nil
	}
	file, err := os.OpenFile(filepath.Join(f.dir, "probe"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(make([]byte, touchBytes)); err != nil {
		return err
	}
	return file.Sync()
}

// Room implements Probe.
func (f folder) Room() (err error) {
	if f.dir == "" {
		return nil
	}
	path := filepath.Join(f.dir, "probe-room")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(path)) }()
	random := make([]byte, roomBytes) // which no file system compresses
	_, _ = rand.Read(random)          // it never fails
	if _, err := file.Write(random); err != nil {
		return err
	}
	return file.Sync()
}

// warning is how little room is left.
type warning int

const (
	roomEnough warning = iota
	roomLow            // below 10 percent
	roomScarce         // below 5 percent
)

// warn logs when the room passes 10 and 5 percent, in either direction, and returns the present warning.
func (h *Health) warn(was warning, s Space) warning {
	is := judgeSpace(was, s)
	if is == was {
		return is
	}
	args := []any{"free_bytes", s.Free, "total_bytes", s.Total}
	switch is {
	case roomScarce:
		h.log.Error("the disk of the data folder has less than 5 percent free: make room before writes fail", args...)
	case roomLow:
		if was == roomEnough {
			h.log.Warn("the disk of the data folder has less than 10 percent free", args...)
		}
	case roomEnough:
		h.log.Info("the disk of the data folder has more than 10 percent free again", args...)
	}
	return is
}

// judgeSpace returns the warning for the room that is left. A warning ends one percent above where it begins.
func judgeSpace(was warning, s Space) warning {
	below := func(percent uint64) bool { return s.Total > 0 && s.Free < s.Total/100*percent }
	limit := func(w warning, percent uint64) uint64 {
		if was >= w {
			return percent + 1
		}
		return percent
	}
	switch {
	case below(limit(roomScarce, 5)):
		return roomScarce
	case below(limit(roomLow, 10)):
		return roomLow
	}
	return roomEnough
}
