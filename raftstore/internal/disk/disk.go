// Package disk keeps the files of a member: the Raft log, Raft's votes and terms, and snapshots.
//
// Every call to the log and to the stable store is timed. One that does not return in time is fatal, because Raft
// cannot detect it: the call blocks the loop that would, while another goroutine goes on sending heartbeats, and the
// member keeps a lead with which it commits nothing. The package also records at which index the latest Raft
// configuration is.
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
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// Config describes the files of a member.
type Config struct {
	// Dir is the folder of the files. If empty, everything is in memory.
	Dir string
	// Limit is how long one call may take.
	Limit time.Duration
	// Fail is called, from a goroutine of its own, when a call has taken longer.
	Fail func(error)
	// Observe receives how long each call took.
	Observe func(time.Duration)
	// Appending is called before entries are written to the log.
	Appending func()
	// Wrap replaces the log store below the checks, in tests of bad disks. If nil, it does not.
	Wrap   func(raft.LogStore) raft.LogStore
	Logger hclog.Logger
}

// Store is the files of a member.
type Store struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore

	configurations *configurationIndex
	bolt           *raftboltdb.BoltStore // nil: in memory
}

const (
	// keptSnapshots is the newest snapshot, and the one before it in case it is damaged.
	keptSnapshots = 2
	// cachedEntries bounds the entries of the log that are kept in memory: two appends to a follower.
	cachedEntries = 128
	// lockTimeout is how long a starting member waits for another process to release the log.
	lockTimeout = 5 * time.Second
)

// Open opens the files, and creates them if they do not exist.
func Open(c Config) (*Store, error) {
	s := &Store{configurations: &configurationIndex{}}
	if c.Dir == "" {
		memory := raft.NewInmemStore()
		s.Log, s.Stable, s.Snapshots = memory, memory, raft.NewInmemSnapshotStore()
	} else if err := s.openFiles(c); err != nil {
		return nil, err
	}
	s.Log = recordingLog{s.Log, s.configurations, c.Appending}
	s.Snapshots = recordingSnapshots{s.Snapshots, s.configurations}
	return s, nil
}

func (s *Store) openFiles(c Config) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the log: %w", err)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(c.Dir, keptSnapshots, c.Logger.Named("snapshots"))
	if err != nil {
		return fmt.Errorf("open the snapshots in %s: %w", c.Dir, err)
	}
	path := filepath.Join(c.Dir, "raft.db")
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout: lockTimeout,
			// The list of free pages is computed at the start, rather than written with every batch.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("open the log %s: another process has it open; stop that one first", path)
	}
	if err != nil {
		return fmt.Errorf("open the log %s: %w", path, err)
	}
	var log raft.LogStore = bolt
	if c.Wrap != nil {
		log = c.Wrap(bolt)
	}
	timed := &timedStore{log: log, stable: bolt, watchdog: watchdog{limit: c.Limit, observe: c.Observe, fail: c.Fail}}
	// Followers receive the newest entries from the cache.
	cached, err := raft.NewLogCache(cachedEntries, timed)
	if err != nil {
		return fmt.Errorf("open the log %s: %w", path, errors.Join(err, bolt.Close()))
	}
	s.Log, s.Stable, s.Snapshots, s.bolt = cached, timed, snapshots, bolt
	return nil
}

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
		return 0, fmt.Errorf("the count of this member's starts has %d bytes, want 8: the log is damaged", len(raw))
	// The in-memory store has an error of its own for this; Raft compares texts too.
	case err != nil && err.Error() != raftboltdb.ErrKeyNotFound.Error():
		return 0, fmt.Errorf("read the count of this member's starts: %w", err)
	}
	if err := s.Stable.Set(incarnationKey, binary.BigEndian.AppendUint64(nil, last+1)); err != nil {
		return 0, fmt.Errorf("write the count of this member's starts: %w", err)
	}
	return last + 1, nil
}

// Close closes the files.
func (s *Store) Close() error {
	if s.bolt == nil {
		return nil
	}
	if err := s.bolt.Close(); err != nil {
		return fmt.Errorf("close the log: %w", err)
	}
	return nil
}
