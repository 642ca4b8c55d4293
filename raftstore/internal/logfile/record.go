package logfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// A record is a CRC-32C of four bytes, big-endian, and a body. The checksum covers the bucket, the key and the body: a
// record under another key, or in the other bucket, is damaged too.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumBytes = 4

func checksum(bucket, key, body []byte) uint32 {
	var length [8]byte
	sum := crc32.Update(0, castagnoli, bucket)
	binary.BigEndian.PutUint64(length[:], uint64(len(key)))
	sum = crc32.Update(sum, castagnoli, length[:])
	sum = crc32.Update(sum, castagnoli, key)
	return crc32.Update(sum, castagnoli, body)
}

// seal fills in the checksum of a record that has room for it at its beginning.
func seal(bucket, key, record []byte) {
	binary.BigEndian.PutUint32(record, checksum(bucket, key, record[sumBytes:]))
}

var errChecksum = errors.New("its checksum does not match")

// open returns the body of a record, which shares its memory.
func open(bucket, key, record []byte) ([]byte, error) {
	if len(record) < sumBytes || binary.BigEndian.Uint32(record) != checksum(bucket, key, record[sumBytes:]) {
		return nil, errChecksum
	}
	return record[sumBytes:], nil
}

// appendEntry appends the record of a log entry, without its checksum: the term, the type, the time, the extensions
// with their length, and the data. The index is the key.
func appendEntry(to []byte, l *raft.Log) []byte {
	to = append(to, make([]byte, sumBytes)...)
	to = binary.AppendUvarint(to, l.Term)
	to = append(to, byte(l.Type))
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	to = binary.AppendVarint(to, at)
	to = binary.AppendUvarint(to, uint64(len(l.Extensions)))
	to = append(to, l.Extensions...)
	return append(to, l.Data...)
}

// decodeEntry decodes the body of an entry's record. The entry has memory of its own.
func decodeEntry(index uint64, body []byte, l *raft.Log) error {
	malformed := errors.New("it is not an entry")
	term, n := binary.Uvarint(body)
	if n <= 0 || len(body) == n {
		return malformed
	}
	kind := raft.LogType(body[n])
	body = body[n+1:]
	at, n := binary.Varint(body)
	if n <= 0 {
		return malformed
	}
	body = body[n:]
	size, n := binary.Uvarint(body)
	if n <= 0 || size > uint64(len(body)-n) {
		return malformed
	}
	body = body[n:]
	*l = raft.Log{Index: index, Term: term, Type: kind}
	if size > 0 {
		l.Extensions = slices.Clone(body[:size])
	}
	l.Data = slices.Clone(body[size:])
	if at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	return nil
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// span is the indexes of the entries in a log; both are 0 if it is empty.
type span struct{ first, last uint64 }

func (s span) holds(index uint64) bool { return index != 0 && s.first <= index && index <= s.last }

func (s span) String() string {
	if s.last == 0 {
		return "no entries"
	}
	return fmt.Sprintf("entries %d to %d", s.first, s.last)
}
