package logfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// End is the part of the log file that is known apart from bbolt: how far the log reaches. It is what a log file that
// lost its last transactions is recognized by.
type End struct {
	// Transaction is the number of a transaction that the log file has seen, and First and Last what it left.
	Transaction, First, Last uint64
	// Snapshot is the index of the newest snapshot that was complete.
	Snapshot uint64
}

// endFile holds the End in one sector. It is written after each transaction of the log file, before the transaction
// returns, and reaches the disk by itself, when a snapshot is complete, or when it is closed. After a kill it is
// therefore exact; after a loss of power it may be older than the log file, and is then a lower bound. It is never
// ahead of the log file. Waiting for the disk here too would cost each write half of its time again.
type endFile struct {
	path string
	file *os.File

	mu  sync.Mutex
	end End
}

const (
	endMagic = "entente-log-end\x01"
	endBytes = len(endMagic) + 4*8 + sumBytes
)

func (e End) encode() []byte {
	b := append(make([]byte, 0, endBytes), endMagic...)
	for _, n := range []uint64{e.Transaction, e.First, e.Last, e.Snapshot} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return binary.BigEndian.AppendUint32(b, checksum(nil, nil, b))
}

func decodeEnd(b []byte) (e End, err error) {
	content := len(b) - sumBytes
	switch {
	case len(b) != endBytes:
		return e, fmt.Errorf("it has %d bytes, and %d belong there", len(b), endBytes)
	case binary.BigEndian.Uint32(b[content:]) != checksum(nil, nil, b[:content]):
		return e, errChecksum
	case string(b[:len(endMagic)]) != endMagic:
		return e, errors.New("its format is not known to this version")
	}
	for i, n := range []*uint64{&e.Transaction, &e.First, &e.Last, &e.Snapshot} {
		*n = binary.BigEndian.Uint64(b[len(endMagic)+8*i:])
	}
	return e, nil
}

// createEnd writes the file, in full or not at all.
func createEnd(path string, end End) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".log-end-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // renamed, or of no use
	_, err = f.Write(end.encode())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return rename(f.Name(), path)
}

// rename moves a file to its final name, on the disk too.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// openEnd opens the file, which must exist.
func openEnd(path string) (*endFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() != int64(endBytes) {
		return nil, damaged(path, "it has %d bytes, and %d belong there", info.Size(), endBytes)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	end, err := decodeEnd(b)
	if err != nil {
		return nil, damaged(path, "%s", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return &endFile{path: path, file: f, end: end}, nil
}

// update writes what change makes of the end, to the disk too if sync.
func (e *endFile) update(sync bool, change func(*End)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := e.end
	change(&next)
	if _, err := e.file.WriteAt(next.encode(), 0); err != nil {
		return fmt.Errorf("write %s: %w", e.path, err)
	}
	e.end = next
	if sync {
		return e.file.Sync()
	}
	return nil
}

func (e *endFile) close() error { return errors.Join(e.file.Sync(), e.file.Close()) }
