package snapshot

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

// Writer writes one snapshot stream: [NewWriter] the header, [Writer.Write] each record, [Writer.Finish] the end. The
// same records give the same bytes.
type Writer struct {
	out   *bufio.Writer
	sum   hash.Hash
	buf   []byte
	left  uint64
	order recordOrder
	info  Info
}

// NewWriter writes the header. It does not close the writer below, nor does Finish.
func NewWriter(to io.Writer, header *statev1.SnapshotHeader) (*Writer, error) {
	w := &Writer{out: bufio.NewWriterSize(to, 64<<10), sum: sha256.New(), left: header.GetRecords()}
	if err := checkHeader(header); err != nil {
		return nil, fmt.Errorf("write snapshot: %w", err)
	}
	w.info = headerInfo(header)
	w.buf = binary.BigEndian.AppendUint32(append(w.buf, magic...), formatVersion)
	if err := w.flush(); err != nil {
		return nil, err
	}
	return w, w.message(header, maxHeaderBytes)
}

// Write appends one record. Records must come in the order that recordOrder defines.
func (w *Writer) Write(record *statev1.SnapshotRecord) error {
	if w.left == 0 {
		return fmt.Errorf("write snapshot: more records than its header announced")
	}
	w.left--
	if err := w.order.check(record); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if row := record.GetRow(); row != nil {
		w.info.countRow(row.GetTable())
	}
	return w.message(record, maxRecordBytes)
}

// Finish ends the stream and describes it.
func (w *Writer) Finish() (Info, error) {
	if w.left != 0 {
		return Info{}, fmt.Errorf("write snapshot: %d records fewer than its header announced", w.left)
	}
	w.buf = append(w.buf, 0)
	if err := w.flush(); err != nil {
		return Info{}, err
	}
	w.sum.Sum(w.info.SHA256[:0])
	if _, err := w.out.Write(w.info.SHA256[:]); err != nil {
		return Info{}, fmt.Errorf("write snapshot: %w", err)
	}
	w.info.Bytes += sha256.Size
	if err := w.out.Flush(); err != nil {
		return Info{}, fmt.Errorf("write snapshot: %w", err)
	}
	return w.info, nil
}

func (w *Writer) message(m proto.Message, limit int) error {
	options := proto.MarshalOptions{Deterministic: true}
	size := options.Size(m)
	if size > limit {
		return fmt.Errorf("write snapshot: a record of %d bytes is over the limit of %d", size, limit)
	}
	var err error
	w.buf, err = options.MarshalAppend(binary.AppendUvarint(w.buf, uint64(size)), m)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return w.flush()
}

func (w *Writer) flush() error {
	w.sum.Write(w.buf) // a hash never fails
	n, err := w.out.Write(w.buf)
	w.info.Bytes += int64(n)
	w.buf = w.buf[:0]
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}
