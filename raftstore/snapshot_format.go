package raftstore

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// A snapshot is one stream, whether Raft keeps it to compact its log or an operator keeps it as a backup:
//
//	offset  bytes  content
//	     0      8  the magic "ENTENTE\n"
//	     8      4  the format version, big endian
//	    12      …  SnapshotHeader: its length as a varint, then the message
//	     …      …  each SnapshotRecord likewise; as many as the header says
//	     …      1  a length of zero: no more records
//	     …     32  the SHA-256 of every byte before it
//
// The digest comes last so that a snapshot can be written in one pass. A reader therefore knows only at the end whether what
// it read was true, and must not act on a record before it has seen the end.
const (
	snapshotMagic         = "ENTENTE\n"
	snapshotFormatVersion = 1

	// A record holds at most one row, whose value fits into one command of 512 KiB together with its key and table.
	maxSnapshotRecordBytes = 1 << 20
	// The header has five small fields; this leaves room for later versions and none for abuse.
	maxSnapshotHeaderBytes = 4 << 10
	maxClusterIDBytes      = 128
)

var (
	// ErrNotSnapshot says that a stream is not a snapshot at all.
	ErrNotSnapshot = errors.New("this is not an Entente snapshot")
	// ErrSnapshotVersion says that a snapshot was written by a newer version of Entente, in a format that this one does not know.
	ErrSnapshotVersion = errors.New("the snapshot's format is not known to this version of Entente; use the version that wrote it, or a later one")
	// ErrSnapshotDamaged says that a snapshot is cut off, altered, or breaks the rules of its own format.
	ErrSnapshotDamaged = errors.New("the snapshot is damaged; take another copy of it")
)

// Info describes a snapshot: what [Inspect] found in it, or what [Store.SaveSnapshot] wrote.
type Info struct {
	// FormatVersion is the version of the stream format.
	FormatVersion uint32
	// ClusterID names the cluster whose state it is.
	ClusterID string
	// Revision is that of the last change that it holds.
	Revision Revision
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

// Inspect reads a snapshot to its end, checks all of it, and says what it holds. It needs no store. The error wraps
// [ErrNotSnapshot], [ErrSnapshotVersion] or [ErrSnapshotDamaged] unless reading itself failed.
func Inspect(r io.Reader) (Info, error) {
	sr, err := newSnapshotReader(r)
	if err != nil {
		return Info{}, err
	}
	for {
		if _, err := sr.next(); errors.Is(err, io.EOF) {
			return sr.info, nil
		} else if err != nil {
			return Info{}, err
		}
	}
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSnapshotDamaged, fmt.Sprintf(format, args...))
}
