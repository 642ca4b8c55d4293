package raftstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// disk is what a member keeps: the log, Raft's votes and terms, and snapshots.
type disk struct {
	log       raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	bolt      *raftboltdb.BoltStore // nil: in memory
}

// How many snapshots are kept: the newest, and the one before in case it is damaged.
const keptSnapshots = 2

// cachedEntries bounds the entries of the log that are kept in memory: two appends to a follower.
const cachedEntries = 128

// lockTimeout is how long a starting member waits for another process to let go of the log.
const lockTimeout = 5 * time.Second

func openDisk(c Config, m *metrics, fail func(error)) (*disk, error) {
	if c.Dir == "" {
		store := raft.NewInmemStore()
		return &disk{log: store, stable: store, snapshots: raft.NewInmemSnapshotStore()}, nil
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the log: %w", err)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(c.Dir, keptSnapshots, c.Logger.Named("snapshots"))
	if err != nil {
		return nil, fmt.Errorf("open the snapshots in %s: %w", c.Dir, err)
	}
	path := filepath.Join(c.Dir, "raft.db")
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout: lockTimeout,
			// The list of free pages is found anew at the start, rather than written with every batch.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open the log %s: another process has it open; stop that one first", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the log %s: %w", path, err)
	}
	var log raft.LogStore = bolt
	if c.wrapLog != nil {
		log = c.wrapLog(bolt)
	}
	timed := &timedStore{log: log, stable: bolt, watchdog: &watchdog{limit: c.Timing.Disk, metrics: m, fail: fail}}
	// The newest entries are kept in memory too, from where they go to the followers.
	cached, err := raft.NewLogCache(cachedEntries, timed)
	if err != nil {
		return nil, fmt.Errorf("open the log %s: %w", path, errors.Join(err, bolt.Close()))
	}
	return &disk{log: cached, stable: timed, snapshots: snapshots, bolt: bolt}, nil
}

var incarnationKey = []byte("entente.incarnation")

// incarnation counts the starts of this member, so that commands of one run are never taken for those of another.
func (d *disk) incarnation() (uint64, error) {
	var last uint64
	raw, err := d.stable.Get(incarnationKey)
	switch {
	case err == nil && len(raw) == 8:
		last = binary.BigEndian.Uint64(raw)
	case err == nil && len(raw) > 0:
		return 0, fmt.Errorf("the count of this member's starts has %d bytes, want 8: the log is damaged", len(raw))
	case err != nil && err.Error() != raftboltdb.ErrKeyNotFound.Error(): // the in-memory store has its own, like Raft itself does
		return 0, fmt.Errorf("read the count of this member's starts: %w", err)
	}
	if err := d.stable.Set(incarnationKey, binary.BigEndian.AppendUint64(nil, last+1)); err != nil {
		return 0, fmt.Errorf("write the count of this member's starts: %w", err)
	}
	return last + 1, nil
}

func (d *disk) close() error {
	if d.bolt == nil {
		return nil
	}
	if err := d.bolt.Close(); err != nil {
		return fmt.Errorf("close the log: %w", err)
	}
	return nil
}
