package snapshot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// Reader reads one snapshot stream and checks every rule of the format. Its memory is bounded by the largest record,
// whatever the stream announces. Records may be used only after [Reader.Next] has returned io.EOF, which it does once
// it has verified the digest.
type Reader struct {
	in     *bufio.Reader
	sum    hash.Hash
	buf    []byte
	header *statev1.SnapshotHeader
	left   uint64
	order  recordOrder
	info   Info
}

// NewReader reads the header.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(from, 64<<10), sum: sha256.New()}
	start, err := r.take(len(magic) + 4)
	switch {
	case err != nil && !errors.Is(err, ErrDamaged):
		return nil, err
	case len(start) == 0 || !strings.HasPrefix(magic, string(start[:min(len(start), len(magic))])):
		return nil, ErrNotSnapshot
	case err != nil:
		return nil, err
	}
	if version := binary.BigEndian.Uint32(start[len(magic):]); version != formatVersion {
		return nil, fmt.Errorf("%w: it has format %d, and this is format %d", ErrVersion, version, formatVersion)
	}
	header := &statev1.SnapshotHeader{}
	if more, err := r.message(header, maxHeaderBytes); err != nil {
		return nil, err
	} else if !more {
		return nil, damaged("its header is empty")
	}
	if err := checkHeader(header); err != nil {
		return nil, damaged("%s", err)
	}
	r.header, r.left = header, header.GetRecords()
	bytesSoFar := r.info.Bytes
	r.info = headerInfo(header)
	r.info.Bytes = bytesSoFar
	return r, nil
}

// Header returns the header.
func (r *Reader) Header() *statev1.SnapshotHeader { return r.header }

// Next returns the next record. It returns io.EOF after the last one, if the digest is right and nothing follows it.
func (r *Reader) Next() (*statev1.SnapshotRecord, error) {
	record := &statev1.SnapshotRecord{}
	more, err := r.message(record, maxRecordBytes)
	if err != nil {
		return nil, err
	}
	if !more {
		return nil, r.end()
	}
	if r.left == 0 {
		return nil, damaged("it holds more than the %d records that its header announces", r.header.GetRecords())
	}
	r.left--
	if err := r.order.check(record); err != nil {
		return nil, damaged("%s", err)
	}
	if row := record.GetRow(); row != nil {
		r.info.countRow(row.GetTable())
	}
	return record, nil
}

func (r *Reader) end() error {
	if r.left != 0 {
		return damaged("it ends %d records before the %d that its header announces", r.left, r.header.GetRecords())
	}
	if got := uint64(r.info.Rows); got != r.header.GetRows() {
		return damaged("it holds %d rows, and its header announces %d", got, r.header.GetRows())
	}
	r.sum.Sum(r.info.SHA256[:0])
	digest, err := r.take(sha256.Size)
	if err != nil {
		return err
	}
	if !bytes.Equal(digest, r.info.SHA256[:]) {
		return damaged("its SHA-256 is %x, and its content has %x", digest, r.info.SHA256)
	}
	switch _, err := r.in.ReadByte(); {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return fmt.Errorf("read snapshot: %w", err)
	default:
		return damaged("something follows its end at byte %d", r.info.Bytes)
	}
}

// message reads a length and the message of that length. At a length of zero, the end of the records, more is false.
func (r *Reader) message(m proto.Message, limit uint64) (more bool, err error) {
	at := r.info.Bytes
	size, err := r.length()
	if err != nil || size == 0 {
		return false, err
	}
	if size > limit {
		return false, damaged("the record at byte %d has %d bytes; the limit is %d", at, size, limit)
	}
	raw, err := r.take(int(size))
	if err != nil {
		return false, err
	}
	if err := proto.Unmarshal(raw, m); err != nil {
		return false, damaged("the record at byte %d is not well formed: %v", at, err)
	}
	if field, ok := unknownField(m.ProtoReflect()); ok {
		return false, damaged("the record at byte %d has an unknown field %d", at, field)
	}
	return true, nil
}

// length reads a varint in its shortest form.
func (r *Reader) length() (uint64, error) {
	var size uint64
	for shift := 0; shift < 35; shift += 7 { // five bytes: far more than any limit, and no overflow
		b, err := r.take(1)
		if err != nil {
			return 0, err
		}
		size |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			if b[0] == 0 && shift > 0 {
				return 0, damaged("the length before byte %d is not in its shortest form", r.info.Bytes)
			}
			return size, nil
		}
	}
	return 0, damaged("the length before byte %d is too long", r.info.Bytes)
}

// take reads exactly n bytes, which stay valid until the next call. It reads the digest at the end too, when the sum is
// no longer needed.
func (r *Reader) take(n int) ([]byte, error) {
	r.buf = slices.Grow(r.buf[:0], n)[:n]
	got, err := io.ReadFull(r.in, r.buf)
	r.info.Bytes += int64(got)
	r.sum.Write(r.buf[:got]) // a hash never fails
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return r.buf[:got], damaged("it is cut off at byte %d", r.info.Bytes)
	case err != nil:
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return r.buf, nil
}

// unknownField finds a field that this version does not define, in a message or below it. Records are flat enough for
// this to be cheap. The values of rows are bytes here, and may hold unknown fields.
func unknownField(m protoreflect.Message) (protowire.Number, bool) {
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		field, _, _ := protowire.ConsumeField(unknown)
		return field, true
	}
	var field protowire.Number
	var found bool
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil || fd.IsMap():
		case fd.IsList():
			for i := range v.List().Len() {
				if field, found = unknownField(v.List().Get(i).Message()); found {
					break
				}
			}
		default:
			field, found = unknownField(v.Message())
		}
		return !found
	})
	return field, found
}
