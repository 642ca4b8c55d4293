// Package snapshot reads and writes snapshots of replicated tables. It knows the stream and the rules that its records
// obey, and nothing of what is done with them.
//
// A snapshot is one stream, whether Raft keeps it to compact its log or an operator keeps it as a backup:
//
//	offset  bytes  content
//	     0      8  the magic "ENTENTE\n"
//	     8      4  the format version, big endian
//	    12      …  SnapshotHeader: its length as a varint, then the message
//	     …      …  each SnapshotRecord likewise; as many as the header announces
//	     …      1  a length of zero: the end of the records
//	     …     32  the SHA-256 of every byte before it
//
// The digest comes last, which lets a snapshot be written in one pass. A reader can verify the content only at the end,
// and must not act on a record before it has reached it.
//
// [Inspect] checks a whole stream. [Reader] and [Writer] hold to the order of order.go.
package snapshot

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ententehq/entente/raftstore/internal/row"
)

const (
	magic         = "ENTENTE\n"
	formatVersion = 1

	// A record holds at most one row, whose value fits into one command of 512 KiB together with its key and table.
	maxRecordBytes = 1 << 20
	// The header has five small fields; this leaves room for later versions and none for abuse.
	maxHeaderBytes    = 4 << 10
	maxClusterIDBytes = 128
)

// The errors that readers of a snapshot distinguish.
var (
	// ErrNotSnapshot means that a stream is not a snapshot at all.
	ErrNotSnapshot = errors.New("this is not an Entente snapshot")
	// ErrVersion means that a newer version of Entente wrote the snapshot, in a format that this one cannot read.
	ErrVersion = errors.New("the snapshot's format is not known to this version of Entente; " +
		"use the version that wrote it, or a later one")
	// ErrDamaged means that a snapshot is cut off, altered, or breaks the rules of its own format.
	ErrDamaged = errors.New("the snapshot is damaged; take another copy of it")
)

// Info describes a snapshot.
type Info struct {
	// FormatVersion is the version of the stream format.
	FormatVersion uint32
	// ClusterID identifies the cluster whose state it is.
	ClusterID string
	// Revision is that of the last change that it holds.
	Revision row.Revision
	// Time is when it was taken, by the clock of the member that took it.
	Time time.Time
	// Tables counts the rows of each table that has any, in the order of their names.
	Tables []TableInfo
	// Rows counts the rows of all tables.
	Rows int
	// Bytes is the length of the whole stream.
	Bytes int64
	// SHA256 is the digest that ends the stream.
	SHA256 [32]byte
}

// TableInfo counts the rows of one table in a snapshot.
type TableInfo struct {
	Name string
	Rows int
}

func (i *Info) countRow(table string) {
	i.Rows++
	if n := len(i.Tables); n > 0 && i.Tables[n-1].Name == table {
		i.Tables[n-1].Rows++
		return
	}
	i.Tables = append(i.Tables, TableInfo{Name: table, Rows: 1})
}

// Inspect reads a snapshot to its end, checks all of it, and describes it. The error wraps [ErrNotSnapshot],
// [ErrVersion] or [ErrDamaged] unless reading itself failed.
func Inspect(r io.Reader) (Info, error) {
	reader, err := NewReader(r)
	if err != nil {
		return Info{}, err
	}
	for {
		if _, err := reader.Next(); errors.Is(err, io.EOF) {
			return reader.info, nil
		} else if err != nil {
			return Info{}, err
		}
	}
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}
