// Package logfile keeps the Raft log and Raft's votes and terms in one bbolt file, and returns nothing from it that was
// not written to it.
//
// Every record has a checksum over its bucket, its key and its content, which is verified whenever the record is read
// (record.go). When the file is opened, its pages are checked before bbolt follows them (pages.go), every record is
// verified, the entries must have no gap, and the log must reach as far as a second, small file has it (end.go). What
// does not match is an error that wraps [ErrDamaged] and names the file; bbolt's panics, and faults of the memory that
// it maps, become such errors too.
//
// A folder that an earlier version wrote, whose records have no checksums, is converted when it is opened (convert.go).
//
// Start reading at [Open].
package logfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// The names of the files in their folder.
const (
	Name    = "log.db"
	EndName = "log.end"
)

var (
	entriesBucket = []byte("entries")
	stableBucket  = []byte("stable")
)

// lockTimeout is how long a starting member waits for another process to release the log.
const lockTimeout = 5 * time.Second

// errNotFound is what Raft recognizes a missing value of the stable store by: it compares the text.
var errNotFound = errors.New("not found")

// File is the log and the stable store. It implements raft.LogStore and raft.StableStore.
type File struct {
	path string
	db   *bbolt.DB
	end  *endFile
	// companion is set before entries are written.
	companion companion
	// broken is the damage at which bbolt has panicked.
	broken atomic.Pointer[error]

	// writing is held during a transaction, until the span and the end are those that it left: entries are written and
	// old ones removed from several goroutines.
	writing sync.Mutex
	mu      sync.RWMutex
	span    span
	txid    uint64 // the last transaction
}

// Open opens the files in a folder, and creates them if it has none.
func Open(dir string) (*File, error) {
	path, endPath := filepath.Join(dir, Name), filepath.Join(dir, EndName)
	if err := prepare(dir); err != nil {
		return nil, err
	}
	end, err := openEnd(endPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, damaged(endPath, "it is missing, and %s is there", path)
	}
	if err != nil {
		return nil, err
	}
	f := &File{path: path, end: end}
	if err := f.open(); err != nil {
		return nil, errors.Join(err, end.file.Close())
	}
	return f, nil
}

// open verifies the log file and opens it.
func (f *File) open() error {
	unlock, err := lock(f.path)
	if err != nil {
		return err
	}
	txid, found, err := verify(f.path)
	if err := errors.Join(err, unlock()); err != nil {
		return err
	}
	if err := agrees(f.path, txid, found, f.end.end); err != nil {
		return err
	}
	f.span, f.txid = found, txid
	f.db, err = openBolt(f.path)
	return err
}

// agrees compares what a log file has with the end that is known apart from it.
func agrees(path string, txid uint64, found span, end End) error {
	switch {
	case txid < end.Transaction:
		return damaged(path, "its last transaction is %d, and %d was written: the last ones are lost",
			txid, end.Transaction)
	case txid == end.Transaction && found != span{end.First, end.Last}:
		return damaged(path, "it has %s, and %s were written", found, span{end.First, end.Last})
	}
	return nil
}

func openBolt(path string) (db *bbolt.DB, err error) {
	_, err = guarded(path, func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout: lockTimeout,
			// The list of free pages is computed at the start, rather than written with every batch.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		})
		return err
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, errLocked(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the log %s: %w", path, err)
	}
	return db, nil
}

func errLocked(path string) error {
	return fmt.Errorf("open the log %s: another process has it open; stop that one first", path)
}

// verify reads the whole file, checks its pages and its records, and returns its last transaction and its entries.
func verify(path string) (txid uint64, found span, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, found, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, found, err
	}
	p := &pages{file: file, size: uint64(info.Size()), visit: func(bucket string, key, record []byte) error {
		body, err := open([]byte(bucket), key, record)
		switch {
		case err != nil && bucket == string(entriesBucket):
			return fmt.Errorf("the entry %x: %w", key, err)
		case err != nil:
			return fmt.Errorf("the record %q: %w", key, err)
		case bucket != string(entriesBucket):
			return nil
		case len(key) != 8:
			return fmt.Errorf("the entry %x has no index", key)
		}
		index := binary.BigEndian.Uint64(key)
		switch {
		case index == 0 || found.last != 0 && index != found.last+1:
			return fmt.Errorf("the entry %d follows %d", index, found.last)
		case found.first == 0:
			found.first = index
		}
		found.last = index
		return decodeEntry(index, body, &raft.Log{})
	}}
	txid, buckets, err := p.check()
	if err == nil && !slices.Equal(buckets, []string{string(entriesBucket), string(stableBucket)}) {
		err = fmt.Errorf("it has the buckets %q", buckets)
	}
	if pathError := (*os.PathError)(nil); err != nil && !errors.As(err, &pathError) {
		err = damaged(path, "%s", err)
	}
	return txid, found, err
}

// IsMonotonic implements raft.MonotonicLogStore: the entries have no gap.
func (f *File) IsMonotonic() bool { return true }

func (f *File) entries() span {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.span
}

// FirstIndex implements raft.LogStore.
func (f *File) FirstIndex() (uint64, error) { return f.entries().first, nil }

// LastIndex implements raft.LogStore.
func (f *File) LastIndex() (uint64, error) { return f.entries().last, nil }

// GetLog implements raft.LogStore.
func (f *File) GetLog(index uint64, log *raft.Log) error {
	if !f.entries().holds(index) {
		return raft.ErrLogNotFound
	}
	missing := false
	err := f.view(func(tx *bbolt.Tx) error {
		key := indexKey(index)
		record := tx.Bucket(entriesBucket).Get(key)
		if record == nil {
			missing = true
			return damaged(f.path, "the entry %d is missing", index)
		}
		body, err := open(entriesBucket, key, record)
		if err == nil {
			err = decodeEntry(index, body, log)
		}
		if err != nil {
			return damaged(f.path, "the entry %d: %s", index, err)
		}
		return nil
	})
	if missing && !f.entries().holds(index) {
		return raft.ErrLogNotFound // it was deleted meanwhile
	}
	return err
}

// StoreLog implements raft.LogStore.
func (f *File) StoreLog(log *raft.Log) error { return f.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore. Entries that the log has from the first index on are replaced. If there is a gap
// before the first index, a snapshot has taken the place of all entries that the log has.
func (f *File) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	for i, l := range logs[1:] {
		if l.Index != logs[i].Index+1 {
			return fmt.Errorf("write %s: the entry %d follows %d", f.path, l.Index, logs[i].Index)
		}
	}
	return f.update(func(tx *bbolt.Tx, s span) (span, error) {
		if err := f.companion.write(tx); err != nil {
			return s, err
		}
		return store(tx, s, logs)
	})
}

// DeleteRange implements raft.LogStore. It removes entries at either end of the log.
func (f *File) DeleteRange(first, last uint64) error {
	return f.update(func(tx *bbolt.Tx, s span) (span, error) {
		first, last := max(first, s.first), min(last, s.last)
		if s.last == 0 || first > last {
			return s, nil
		}
		left := span{}
		switch {
		case first == s.first && last == s.last:
		case first == s.first:
			left = span{last + 1, s.last}
		case last == s.last:
			left = span{s.first, first - 1}
		default:
			return s, fmt.Errorf("remove entries %d to %d of %s: they are in the middle", first, last, s)
		}
		return left, remove(tx.Bucket(entriesBucket), first, last)
	})
}

func remove(bucket *bbolt.Bucket, first, last uint64) error {
	for index := first; index <= last && index != 0; index++ {
		if err := bucket.Delete(indexKey(index)); err != nil {
			return err
		}
	}
	return nil
}

// Set implements raft.StableStore.
func (f *File) Set(key, value []byte) error {
	return f.update(func(tx *bbolt.Tx, s span) (span, error) { return s, set(tx, key, value) })
}

// Get implements raft.StableStore.
func (f *File) Get(key []byte) (value []byte, err error) {
	err = f.view(func(tx *bbolt.Tx) error {
		record := tx.Bucket(stableBucket).Get(key)
		if record == nil {
			return errNotFound
		}
		body, err := open(stableBucket, key, record)
		if err != nil {
			return damaged(f.path, "the record %q: %s", key, err)
		}
		value = slices.Clone(body)
		return nil
	})
	return value, err
}

// SetUint64 implements raft.StableStore.
func (f *File) SetUint64(key []byte, value uint64) error {
	return f.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (f *File) GetUint64(key []byte) (uint64, error) {
	value, err := f.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, damaged(f.path, "the record %q has %d bytes, and 8 belong there", key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// view reads. bbolt reads the older of its two heads where the newer is damaged, and so an older state of the file.
func (f *File) view(fn func(*bbolt.Tx) error) error {
	written := f.transaction()
	return f.guarded(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			if read := uint64(tx.ID()); read < written {
				return damaged(f.path, "transaction %d was written, and %d is read", written, read)
			}
			return fn(tx)
		})
	})
}

func (f *File) transaction() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.txid
}

// update runs a transaction, which is given the entries of the log and returns those that it leaves.
func (f *File) update(fn func(*bbolt.Tx, span) (span, error)) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	var txid uint64
	var next span
	err := f.guarded(func() error {
		return f.db.Update(func(tx *bbolt.Tx) (err error) {
			txid = uint64(tx.ID())
			if written := f.transaction(); txid != written+1 {
				return damaged(f.path, "transaction %d was written, and %d follows it", written, txid)
			}
			next, err = fn(tx, f.entries())
			return err
		})
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.span, f.txid = next, txid
	f.mu.Unlock()
	return f.end.update(false, func(e *End) { e.Transaction, e.First, e.Last = txid, next.first, next.last })
}

// SnapshotTaken records the index of a snapshot that is complete.
func (f *File) SnapshotTaken(index uint64) error {
	return f.end.update(true, func(e *End) { e.Snapshot = max(e.Snapshot, index) })
}

// Covered checks that a snapshot, whose index is 0 if there is none, and the log together have everything that the
// member had.
func (f *File) Covered(snapshot uint64) error {
	s, end := f.entries(), f.end.end
	switch {
	case s.last > snapshot && s.first > snapshot+1:
		return fmt.Errorf("the log %s begins with entry %d, and the newest snapshot that can be read ends with %d: "+
			"what is between them is %w", f.path, s.first, snapshot, ErrDamaged)
	case max(s.last, snapshot) < end.Snapshot:
		return fmt.Errorf("a snapshot up to entry %d was complete, and the newest that can be read ends with %d: "+
			"the snapshots beside %s are %w", end.Snapshot, snapshot, f.path, ErrDamaged)
	}
	return nil
}

// Close closes the files. A file at which bbolt has panicked stays open until the process ends.
func (f *File) Close() error {
	if f.broken.Load() != nil {
		return f.end.close()
	}
	return errors.Join(f.guarded(f.db.Close), f.end.close())
}
