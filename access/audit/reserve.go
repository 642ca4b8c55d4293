package audit

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// reservedBytes is the room that the log keeps beyond its end: some ten thousand lines, with which the member can
	// still sign, refuse and be repaired while the disk is full.
	reservedBytes = 8 << 20
	// reserveEvery is the least time between attempts to reserve room on a disk that has none.
	reserveEvery = time.Minute
)

// reserve keeps room on the disk beyond the end of the file, without changing its size: lines that are written later
// take it. It is renewed when half of it is used up. The caller holds mu.
func (l *Log) reserve() {
	if l.file == nil || l.reserved-l.end >= reservedBytes/2 || l.now().Before(l.reserveNext) {
		return
	}
	err := unix.Fallocate(int(l.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, l.end, reservedBytes)
	switch {
	case err == nil:
		l.reserved = l.end + reservedBytes
		return
	case errors.Is(err, syscall.EOPNOTSUPP):
		l.logger.Debug("the file system cannot reserve room for the audit log", "path", l.path)
	default:
		l.logger.Warn("cannot reserve room for the audit log; it is written for as long as the disk has room",
			"path", l.path, "error", err)
	}
	l.reserveNext = l.now().Add(reserveEvery)
}

// release gives up the room beyond the end of a file that is no longer written to.
func release(f *os.File, end int64) error { return f.Truncate(end) }
