// Package disk keeps the files of a member: the Raft log, Raft's votes and terms, snapshots, and the record of the
// applied revision.
//
// Every call to the log and to the stable store is timed. One that does not return in time is fatal, because Raft
// cannot detect it: the call blocks the loop that would, while another goroutine goes on sending heartbeats, and the
// member keeps leadership with which it commits nothing. Without room the member waits until there is room; any other
// fault stops it. [Health] is what the calls, and probes between them, show of the disk. The package also records at
// which index the latest Raft configuration is.
//
// Nothing is returned that was not written: package logfile verifies every record, snapshots.go every snapshot. Damage
// is an error that wraps [ErrDamaged]; once Raft runs, it stops the member as any fault does.
package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/ententehq/entente/raftstore/internal/applied"
	"github.com/ententehq/entente/raftstore/internal/logfile"
)

// ErrDamaged means that a file does not contain what was written to it: the member must not continue with it, and can
// be rebuilt from the others.
var ErrDamaged = logfile.ErrDamaged

// Config describes the files of a member.
type Config struct {
	// Dir is the folder of the files. If empty, everything is in memory.
	Dir string
	// Limit is how long one call may take.
	Limit time.Duration
	// Fail is called when a call has taken longer, or when a fault or a damaged file stops the member while Raft runs.
	// It must not block.
	Fail func(error)
	// Observe receives how long each call took.
	Observe func(time.Duration)
	// Appending is called before entries are written to the log.
	Appending func()
	// Wrap replaces the log store below the checks, in tests of bad disks. If nil, it does not.
	Wrap func(raft.LogStore) raft.LogStore
	// Probe replaces the probes of the folder, in tests of bad disks. If nil, it does not.
	Probe  Probe
	Logger hclog.Logger
}

// Store is the files of a member.
type Store struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Health    *Health
	Applied   *applied.File

	configurations *configurationIndex
	file           *logfile.File // nil: in memory
	dir            string        // "": in memory
}

const (
	// keptSnapshots is the newest snapshot, and the one before it in case it is damaged.
	keptSnapshots = 2
	// cachedEntries bounds the entries of the log that are kept in memory: two appends to a follower.
	cachedEntries = 128
)

// Open opens the files, and creates them if they do not exist.
func Open(c Config) (*Store, error) {
	s := &Store{configurations: &configurationIndex{}, Health: newHealth(c)}
	if c.Dir == "" {
		memory := raft.NewInmemStore()
		s.Log, s.Stable, s.Snapshots = memory, memory, raft.NewInmemSnapshotStore()
		s.Applied, _ = applied.Open("", nil) // which cannot fail in memory
	} else if err := s.openFiles(c); err != nil {
		return nil, err
	}
	s.Log = recordingLog{s.Log, s.configurations, c.Appending}
	s.Snapshots = recordingSnapshots{s.Snapshots, s.configurations}
	return s, nil
}

func (s *Store) openFiles(c Config) (err error) {
	if err := finishRebuild(c.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the log: %w", err)
	}
	s.dir = c.Dir
	if err := refusal(c.Dir); err != nil {
		return err
	}
	if s.file, err = logfile.Open(c.Dir); err != nil {
		return err
	}
	if err := s.openSnapshots(c); err != nil {
		return errors.Join(err, s.file.Close())
	}
	if s.Applied, err = applied.Open(filepath.Join(c.Dir, "applied"), s.Health.mustWrite); err != nil {
		return errors.Join(err, s.file.Close())
	}
	if err := s.coverLog(); err != nil {
		return errors.Join(err, s.Applied.Close(), s.file.Close())
	}
	var log raft.LogStore = s.file
	if c.Wrap != nil {
		log = c.Wrap(log)
	}
	timed := &timedStore{log: log, stable: s.file, health: s.Health}
	// Followers receive the newest entries from the cache.
	cached, err := raft.NewLogCache(cachedEntries, timed)
	if err != nil {
		return fmt.Errorf("open the log in %s: %w", c.Dir, errors.Join(err, s.file.Close()))
	}
	s.Log, s.Stable = cached, timed
	return nil
}

// openSnapshots opens the snapshots, and checks that they and the log have everything that the member had.
func (s *Store) openSnapshots(c Config) error {
	dir := filepath.Join(c.Dir, "snapshots")
	snapshots, err := openSnapshots(dir, c.Logger.Named("snapshots"), s.file.SnapshotTaken)
	if err != nil {
		return fmt.Errorf("open the snapshots in %s: %w", dir, err)
	}
	if err := snapshots.convert(); err != nil {
		return fmt.Errorf("convert the snapshots of an earlier version in %s: %w", dir, err)
	}
	newest, err := snapshots.newest()
	if err != nil {
		return err
	}
	s.Snapshots = watchedSnapshots{snapshots, s.Health}
	return s.file.Covered(newest)
}

// Serve is called before Raft starts. From then on the member stops at a fault of its disk, or at damage, in place of a
// call that returns it. It returns a function that returns the fault that was found.
func (s *Store) Serve() (found func() error) {
	s.Health.serving.Store(true)
	return func() error {
		if err := s.Health.stopped.Load(); err != nil {
			return *err
		}
		return nil
	}
}

// Release ends the waiting for room, so that Raft can stop. Nothing may leave this member any more.
func (s *Store) Release() { s.Health.release() }

// HasState reports whether the member was part of a cluster before.
func (s *Store) HasState() (bool, error) {
	return raft.HasExistingState(s.Log, s.Stable, s.Snapshots)
}

// ConfigurationIndex returns the index of the latest Raft configuration in the log, or in the snapshot that Raft has
// opened.
func (s *Store) ConfigurationIndex() uint64 { return s.configurations.latest() }

var incarnationKey = []byte("entente.incarnation")

// NextIncarnation counts the starts of this member, which distinguishes the commands of one run from those of another.
func (s *Store) NextIncarnation() (uint64, error) {
	var last uint64
	raw, err := s.Stable.Get(incarnationKey)
	switch {
	case err == nil && len(raw) == 8:
		last = binary.BigEndian.Uint64(raw)
	case err == nil && len(raw) > 0:
		return 0, fmt.Errorf("the count of this member's starts has %d bytes, want 8: the log is %w",
			len(raw), ErrDamaged)
	// Raft's in-memory store has an error of its own for this; Raft compares texts too.
	case err != nil && err.Error() != "not found":
		return 0, fmt.Errorf("read the count of this member's starts: %w", err)
	}
	if err := s.Stable.Set(incarnationKey, binary.BigEndian.AppendUint64(nil, last+1)); err != nil {
		return 0, fmt.Errorf("write the count of this member's starts: %w", err)
	}
	return last + 1, nil
}

// Close waits for the calls that run, and closes the files. Raft must have stopped; a call that begins later, such as
// one for a message that the transport had accepted before, ends its goroutine.
func (s *Store) Close() error {
	s.Health.close()
	if s.file == nil {
		return nil
	}
	err := s.Applied.Close()
	if closing := s.file.Close(); closing != nil {
		err = errors.Join(err, fmt.Errorf("close the log: %w", closing))
	}
	return err
}

// LastIndex returns the index of the last entry in the log or in the newest snapshot.
func (s *Store) LastIndex() (uint64, error) {
	last, err := s.Log.LastIndex()
	if err != nil {
		return 0, fmt.Errorf("read the last index of the log: %w", err)
	}
	snapshots, err := s.Snapshots.List()
	if err != nil {
		return 0, fmt.Errorf("list the snapshots: %w", err)
	}
	if len(snapshots) > 0 {
		last = max(last, snapshots[0].Index)
	}
	return last, nil
}
