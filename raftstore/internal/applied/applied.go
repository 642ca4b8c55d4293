// Package applied keeps the record of how far the state of a member was published: the revision up to which anything
// of it may have left the member, and when the member last had contact with a leader.
//
// Raft itself stores only what is in the log, and not how much of it is committed. Without this record a restarted
// member would not know how much of its log it may apply before a leader tells it, nor how new the state was that it
// has served.
//
// The record has two slots in one page, each with a checksum, which are written in turn. A slot that is damaged makes
// the record unknown, see [Record]: the other slot may be older than what was published.
package applied

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Record is what a member had published before it stopped.
type Record struct {
	// Revision is at least that of everything that was published.
	Revision uint64
	// Contact is the last contact with a leader that was recorded. The zero time means none.
	Contact time.Time
	// Known is false if there is no record, or a damaged one. Then Revision may be too low.
	Known bool
}

const (
	fileSize   = 4096
	slotOffset = 512 // between the slots: two sectors
	slotSize   = 8 + 8 + 8 + 8 + 4
	// idle is after which time at most a record reaches the disk that need not be synced at once. The revision reaches
	// it sooner with the next entries of the log, which carry it.
	idle = time.Second
)

// magic begins every slot. Its last character is the version of the format.
var magic = [8]byte{'E', 'N', 'T', 'A', 'P', 'P', 'L', '1'}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// File is the record of a member on its disk. It is safe for concurrent use.
type File struct {
	path  string
	write func(call string, fn func() error) error
	last  Record
	dirty chan struct{} // delivers a value after a write that was not synced

	revision atomic.Uint64 // of present, or what is covered

	mu      sync.Mutex
	file    *os.File // nil: the record is in memory
	count   uint64
	present Record
}

// Open opens the record, and creates it if it does not exist. Later writes go through write,
// which calls fn once or, where the disk was full, again. If path is empty, the record is in memory.
func Open(path string, write func(call string, fn func() error) error) (*File, error) {
	f := &File{path: path, write: write, dirty: make(chan struct{}, 1)}
	if path == "" {
		return f, nil
	}
	var err error
	if f.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("open the record of the applied revision: %w", err)
	}
	page := make([]byte, fileSize)
	n, err := f.file.ReadAt(page, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read the record of the applied revision %s: %w", path, errors.Join(err, f.file.Close()))
	case n < fileSize:
		// A new file, or one that was cut: written whole now, so that later writes need no space.
		if err := f.create(page); err != nil {
			return nil, errors.Join(err, f.file.Close())
		}
	}
	f.count, f.last = decode(page)
	f.present = f.last
	f.revision.Store(f.last.Revision)
	return f, nil
}

func (f *File) create(page []byte) error {
	_, err := f.file.WriteAt(page, 0)
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("create the record of the applied revision %s: %w", f.path, err)
	}
	folder, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Last returns the record as it was when the file was opened.
func (f *File) Last() Record { return f.last }

// Cover lets the record, as it was when the file was opened, cover a revision that is committed for another reason.
func (f *File) Cover(revision uint64) {
	if revision > f.last.Revision {
		f.last.Revision, f.last.Known = revision, true
		f.revision.Store(revision)
	}
}

// Revision returns the revision that is recorded or covered. It waits for nothing.
func (f *File) Revision() uint64 { return f.revision.Load() }

// Record records that the state up to a revision will be published. If now is set, the record is on disk when it
// returns. It survives the end of the process in any case. A revision below the recorded one changes nothing.
func (f *File) Record(revision uint64, now bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if revision <= f.present.Revision {
		return nil
	}
	next := f.present
	next.Revision = revision
	return f.replace(next, now)
}

// RecordContact records a contact with a leader. It is on disk soon.
func (f *File) RecordContact(at time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.present
	next.Contact = at
	return f.replace(next, false)
}

func (f *File) replace(r Record, now bool) error {
	if f.file == nil {
		f.become(r)
		return nil
	}
	err := f.write("recording the applied revision", func() error {
		if _, err := f.file.WriteAt(encode(f.count+1, r), offset(f.count+1)); err != nil {
			return fmt.Errorf("write the record of the applied revision %s: %w", f.path, err)
		}
		if now {
			return f.sync()
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.count++
	f.become(r)
	if !now {
		signal(f.dirty)
	}
	return nil
}

func (f *File) become(r Record) {
	f.present = r
	f.revision.Store(max(f.revision.Load(), r.Revision))
}

func (f *File) sync() error {
	if err := f.file.Sync(); err != nil {
		return fmt.Errorf("sync the record of the applied revision %s: %w", f.path, err)
	}
	return nil
}

// Run brings the record to the disk where that was not done at once, until ctx ends. It returns the first error of the
// disk.
func (f *File) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.dirty:
		}
		timer := time.NewTimer(idle)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		// Without the lock: a write need not wait for it.
		if err := f.write("syncing the applied revision", f.sync); err != nil {
			return err
		}
	}
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	return errors.Join(f.sync(), f.file.Close())
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func offset(count uint64) int64 { return int64(count%2) * slotOffset }

func encode(count uint64, r Record) []byte {
	slot := make([]byte, 0, slotSize)
	slot = append(slot, magic[:]...)
	slot = binary.BigEndian.AppendUint64(slot, count)
	slot = binary.BigEndian.AppendUint64(slot, r.Revision)
	var contact int64
	if !r.Contact.IsZero() {
		contact = r.Contact.UnixNano()
	}
	slot = binary.BigEndian.AppendUint64(slot, uint64(contact)) //nolint:gosec // its two's complement
	return binary.BigEndian.AppendUint32(slot, crc32.Checksum(slot, castagnoli))
}

// decode returns the newest record of a page, and its count.
func decode(page []byte) (count uint64, r Record) {
	var counts [2]uint64
	var records [2]Record
	var empty [2]bool
	for i := range uint64(2) {
		slot := page[offset(i):][:slotSize]
		counts[i], records[i] = decodeSlot(slot, i)
		empty[i] = len(slot) == countZeros(slot)
	}
	newest := 0
	if counts[1] > counts[0] {
		newest = 1
	}
	other := 1 - newest
	count, r = counts[newest], records[newest]
	// The first write leaves the other slot empty; after that both are valid.
	r.Known = count == 1 && empty[other] || counts[other] != 0
	return count, r
}

// decodeSlot returns the count 0 for a slot that is empty or damaged.
func decodeSlot(slot []byte, at uint64) (count uint64, r Record) {
	body, sum := slot[:slotSize-4], binary.BigEndian.Uint32(slot[slotSize-4:])
	if [8]byte(body) != magic || crc32.Checksum(body, castagnoli) != sum {
		return 0, Record{}
	}
	count = binary.BigEndian.Uint64(body[8:])
	if count%2 != at {
		return 0, Record{} // it was written to the other slot
	}
	r.Revision = binary.BigEndian.Uint64(body[16:])
	if contact := int64(binary.BigEndian.Uint64(body[24:])); contact != 0 { //nolint:gosec // its two's complement
		r.Contact = time.Unix(0, contact)
	}
	return count, r
}

func countZeros(b []byte) (n int) {
	for _, c := range b {
		if c == 0 {
			n++
		}
	}
	return n
}
