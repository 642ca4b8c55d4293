package raftstore

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

// snapshotReader reads one snapshot stream and holds it to every rule of the format. Its memory is bounded by the largest
// record, whatever the stream claims. What next returned may be used once next has returned io.EOF, and not before: only
// then is the digest checked.
type snapshotReader struct {
	in     *bufio.Reader
	sum    hash.Hash
	buf    []byte
	header *statev1.SnapshotHeader
	left   uint64
	order  recordOrder
	info   Info
}

func newSnapshotReader(r io.Reader) (*snapshotReader, error) {
	sr := &snapshotReader{in: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	start, err := sr.take(len(snapshotMagic) + 4)
	switch {
	case err != nil && !errors.Is(err, ErrSnapshotDamaged):
		return nil, err
	case len(start) == 0 || !strings.HasPrefix(snapshotMagic, string(start[:min(len(start), len(snapshotMagic))])):
		return nil, ErrNotSnapshot
	case err != nil:
		return nil, err
	}
	if version := binary.BigEndian.Uint32(start[len(snapshotMagic):]); version != snapshotFormatVersion {
		return nil, fmt.Errorf("%w: it has format %d, and this is format %d", ErrSnapshotVersion, version, snapshotFormatVersion)
	}
	header := &statev1.SnapshotHeader{}
	if more, err := sr.message(header, maxSnapshotHeaderBytes); err != nil {
		return nil, err
	} else if !more {
		return nil, damaged("its header is empty")
	}
	if err := checkHeader(header); err != nil {
		return nil, damaged("%s", err)
	}
	sr.header, sr.left = header, header.GetRecords()
	bytesSoFar := sr.info.Bytes
	sr.info = headerInfo(header)
	sr.info.Bytes = bytesSoFar
	return sr, nil
}

// next returns the next record, or io.EOF once every record was read, the digest is right, and nothing follows it.
func (sr *snapshotReader) next() (*statev1.SnapshotRecord, error) {
	record := &statev1.SnapshotRecord{}
	more, err := sr.message(record, maxSnapshotRecordBytes)
	if err != nil {
		return nil, err
	}
	if !more {
		return nil, sr.end()
	}
	if sr.left == 0 {
		return nil, damaged("it holds more than the %d records that its header announces", sr.header.GetRecords())
	}
	sr.left--
	if err := sr.order.check(record); err != nil {
		return nil, damaged("%s", err)
	}
	if row := record.GetRow(); row != nil {
		sr.info.countRow(row.GetTable())
	}
	return record, nil
}

func (sr *snapshotReader) end() error {
	if sr.left != 0 {
		return damaged("it ends %d records before the %d that its header announces", sr.left, sr.header.GetRecords())
	}
	if got := uint64(sr.info.Rows); got != sr.header.GetRows() {
		return damaged("it holds %d rows, and its header announces %d", got, sr.header.GetRows())
	}
	sr.sum.Sum(sr.info.SHA256[:0])
	digest, err := sr.take(sha256.Size)
	if err != nil {
		return err
	}
	if !bytes.Equal(digest, sr.info.SHA256[:]) {
		return damaged("its SHA-256 is %x, and its content has %x", digest, sr.info.SHA256)
	}
	switch _, err := sr.in.ReadByte(); {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return fmt.Errorf("read snapshot: %w", err)
	default:
		return damaged("something follows its end at byte %d", sr.info.Bytes)
	}
}

// message reads one length and the message of that length. A length of zero is the end of the records: more is false.
func (sr *snapshotReader) message(m proto.Message, limit uint64) (more bool, err error) {
	at := sr.info.Bytes
	size, err := sr.length()
	if err != nil || size == 0 {
		return false, err
	}
	if size > limit {
		return false, damaged("the record at byte %d has %d bytes; the limit is %d", at, size, limit)
	}
	raw, err := sr.take(int(size))
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
func (sr *snapshotReader) length() (uint64, error) {
	var size uint64
	for shift := 0; shift < 35; shift += 7 { // five bytes: far more than any limit, and no overflow
		b, err := sr.take(1)
		if err != nil {
			return 0, err
		}
		size |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			if b[0] == 0 && shift > 0 {
				return 0, damaged("the length before byte %d is not in its shortest form", sr.info.Bytes)
			}
			return size, nil
		}
	}
	return 0, damaged("the length before byte %d is too long", sr.info.Bytes)
}

// take reads exactly n bytes, which stay valid until the next call. The digest at the end goes through it too; by then the
// sum is no longer needed.
func (sr *snapshotReader) take(n int) ([]byte, error) {
	sr.buf = slices.Grow(sr.buf[:0], n)[:n]
	got, err := io.ReadFull(sr.in, sr.buf)
	sr.info.Bytes += int64(got)
	sr.sum.Write(sr.buf[:got]) // a hash never fails
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return sr.buf[:got], damaged("it is cut off at byte %d", sr.info.Bytes)
	case err != nil:
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return sr.buf, nil
}

// unknownField finds a field that this version does not know in a message or below it. Records are flat enough for this to
// be cheap; the rows' own values are bytes here, and keep whatever they hold.
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
