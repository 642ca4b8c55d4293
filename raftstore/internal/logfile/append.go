package logfile

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// Append stores entries after the last one, and values of the stable store, in one transaction: all of it is on disk
// when it returns without an error, and none of it before.
func (f *File) Append(logs []*raft.Log, values map[string][]byte) error {
	return f.update(func(tx *bbolt.Tx, s span) (span, error) {
		for _, key := range slices.Sorted(maps.Keys(values)) {
			if err := set(tx, []byte(key), values[key]); err != nil {
				return s, err
			}
		}
		return store(tx, s, logs)
	})
}

// Accompany lets every write of entries store a number in the stable store too, in the same transaction. number is
// called from the goroutines that write, and must not wait for a write.
func (f *File) Accompany(key []byte, number func() uint64) { f.companion = companion{key, number} }

// companion is what is written with entries. The zero value is nothing.
type companion struct {
	key    []byte
	number func() uint64
}

func (c companion) write(tx *bbolt.Tx) error {
	if c.number == nil {
		return nil
	}
	return set(tx, c.key, binary.BigEndian.AppendUint64(nil, c.number()))
}

func set(tx *bbolt.Tx, key, value []byte) error {
	record := append(make([]byte, sumBytes, sumBytes+len(value)), value...)
	seal(stableBucket, key, record)
	return tx.Bucket(stableBucket).Put(key, record)
}

// store writes entries without a gap between them, and returns the entries of the log after that.
func store(tx *bbolt.Tx, s span, logs []*raft.Log) (span, error) {
	bucket := tx.Bucket(entriesBucket)
	first, last := logs[0].Index, logs[len(logs)-1].Index
	switch {
	case s.last == 0 || first < s.first || first > s.last+1:
		if err := remove(bucket, s.first, s.last); err != nil {
			return s, err
		}
		s.first = first
	default:
		if err := remove(bucket, last+1, s.last); err != nil {
			return s, err
		}
	}
	s.last = last
	for _, l := range logs {
		key := indexKey(l.Index)
		record := appendEntry(make([]byte, 0, sumBytes+32+len(l.Data)+len(l.Extensions)), l)
		seal(entriesBucket, key, record)
		if err := bucket.Put(key, record); err != nil {
			return s, err
		}
	}
	return s, nil
}
