package raftstore

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// snapshotWriter writes one snapshot stream: the header when it is made, then each record, then [snapshotWriter.finish].
// The same records give the same bytes.
type snapshotWriter struct {
	out   *bufio.Writer
	sum   hash.Hash
	buf   []byte
	left  uint64
	order recordOrder
	info  Info
}

func newSnapshotWriter(w io.Writer, header *statev1.SnapshotHeader) (*snapshotWriter, error) {
	sw := &snapshotWriter{out: bufio.NewWriterSize(w, 64<<10), sum: sha256.New(), left: header.GetRecords()}
	if err := checkHeader(header); err != nil {
		return nil, fmt.Errorf("write snapshot: %w", err)
	}
	sw.info = headerInfo(header)
	sw.buf = binary.BigEndian.AppendUint32(append(sw.buf, snapshotMagic...), snapshotFormatVersion)
	if err := sw.flush(); err != nil {
		return nil, err
	}
	return sw, sw.message(header, maxSnapshotHeaderBytes)
}

// write appends one record. Records come in the order that recordOrder asks for.
func (sw *snapshotWriter) write(record *statev1.SnapshotRecord) error {
	if sw.left == 0 {
		return fmt.Errorf("write snapshot: more records than its header announced")
	}
	sw.left--
	if err := sw.order.check(record); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if row := record.GetRow(); row != nil {
		sw.info.countRow(row.GetTable())
	}
	return sw.message(record, maxSnapshotRecordBytes)
}

// finish ends the stream and says what was written. It does not close the writer below.
func (sw *snapshotWriter) finish() (Info, error) {
	if sw.left != 0 {
		return Info{}, fmt.Errorf("write snapshot: %d records fewer than its header announced", sw.left)
	}
	sw.buf = append(sw.buf, 0)
	if err := sw.flush(); err != nil {
		return Info{}, err
	}
	sw.sum.Sum(sw.info.SHA256[:0])
	if _, err := sw.out.Write(sw.info.SHA256[:]); err != nil {
		return Info{}, fmt.Errorf("write snapshot: %w", err)
	}
	sw.info.Bytes += sha256.Size
	if err := sw.out.Flush(); err != nil {
		return Info{}, fmt.Errorf("write snapshot: %w", err)
	}
	return sw.info, nil
}

func (sw *snapshotWriter) message(m proto.Message, limit int) error {
	options := proto.MarshalOptions{Deterministic: true}
	size := options.Size(m)
	if size > limit {
		return fmt.Errorf("write snapshot: a record of %d bytes is over the limit of %d", size, limit)
	}
	var err error
	sw.buf, err = options.MarshalAppend(binary.AppendUvarint(sw.buf, uint64(size)), m)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return sw.flush()
}

func (sw *snapshotWriter) flush() error {
	sw.sum.Write(sw.buf) // a hash never fails
	n, err := sw.out.Write(sw.buf)
	sw.info.Bytes += int64(n)
	sw.buf = sw.buf[:0]
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}
