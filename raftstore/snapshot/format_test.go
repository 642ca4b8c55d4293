package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func sampleHeader(records, rows uint64) *statev1.SnapshotHeader {
	return &statev1.SnapshotHeader{
		ClusterId: "b3a1f6f0c2",
		Revision:  42,
		Term:      3,
		Time:      timestamppb.New(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)),
		Records:   records,
		Rows:      rows,
	}
}

func rowRecord(table, key, value string, revision uint64) *statev1.SnapshotRecord {
	return &statev1.SnapshotRecord{Kind: &statev1.SnapshotRecord_Row{Row: &statev1.SnapshotRow{
		Table: table, Key: key, Value: []byte(value), Revision: revision,
	}}}
}

// sampleRecords holds one record of every kind, in the order of the format.
func sampleRecords() []*statev1.SnapshotRecord {
	return []*statev1.SnapshotRecord{
		rowRecord("domains", "eu.example.org", "a", 7),
		rowRecord("domains", "us.example.org", "", 9),
		rowRecord("members", "eu-1", "b", 2),
		{
			Kind: &statev1.SnapshotRecord_Tombstone{
				Tombstone: &statev1.Tombstone{Table: "domains", Key: "ap.example.org", Revision: 11},
			},
		},
		{Kind: &statev1.SnapshotRecord_Floor{Floor: &statev1.Floor{Table: "instances", Revision: 10}}},
		{Kind: &statev1.SnapshotRecord_Session{Session: &statev1.Session{
			Member: "eu-1@AAAA", Incarnation: 2, Floor: 5, Revision: 42,
			Outcomes: []*statev1.Outcome{{Counter: 5, Applied: true, Revision: 42}, {Counter: 6}},
		}}},
		{
			Kind: &statev1.SnapshotRecord_Staging{
				Staging: &statev1.Staging{Generation: "g1", Chunks: 1, Attempt: 1, CarriedChunks: 1},
			},
		},
		{
			Kind: &statev1.SnapshotRecord_Staged{
				Staged: &statev1.StagedRow{Table: "domains", Key: "eu.example.org", Value: []byte("c")},
			},
		},
		{
			Kind: &statev1.SnapshotRecord_Staged{
				Staged: &statev1.StagedRow{Table: "domains", Key: "eu.example.org", Carried: true},
			},
		},
	}
}

func writeSample(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, sampleHeader(9, 3))
	require.NoError(t, err)
	for _, record := range sampleRecords() {
		require.NoError(t, w.Write(record))
	}
	info, err := w.Finish()
	require.NoError(t, err)
	require.EqualValues(t, out.Len(), info.Bytes)
	return out.Bytes()
}

// The golden file was written by the first version of this format. It must still be read, and written byte by byte, so
// that an operator can restore an old snapshot.
func TestSnapshotGolden(t *testing.T) {
	golden := filepath.Join("testdata", "snapshot-v1.golden")
	if *update {
		require.NoError(t, os.WriteFile(golden, writeSample(t), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, want, writeSample(t))

	r, err := NewReader(iotest.OneByteReader(bytes.NewReader(want)))
	require.NoError(t, err)
	require.True(t, proto.Equal(sampleHeader(9, 3), r.Header()))
	for _, record := range sampleRecords() {
		got, err := r.Next()
		require.NoError(t, err)
		require.True(t, proto.Equal(record, got), "want %v, got %v", record, got)
	}
	_, err = r.Next()
	require.ErrorIs(t, err, io.EOF)
}

func TestInspect(t *testing.T) {
	raw := writeSample(t)
	info, err := Inspect(bytes.NewReader(raw))
	require.NoError(t, err)
	require.Equal(t, Info{
		FormatVersion: 1,
		ClusterID:     "b3a1f6f0c2",
		Revision:      42,
		Time:          time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
		Tables:        []TableInfo{{"domains", 2}, {"members", 1}},
		Rows:          3,
		Bytes:         int64(len(raw)),
		SHA256:        sha256.Sum256(raw[:len(raw)-sha256.Size]),
	}, info)
}

// Whatever single byte is changed, dropped or added, the snapshot is refused.
func TestSnapshotEveryByteCounts(t *testing.T) {
	raw := writeSample(t)
	refused := func(what string, altered []byte) {
		t.Helper()
		_, err := Inspect(bytes.NewReader(altered))
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotSnapshot) && !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range raw {
		altered := bytes.Clone(raw)
		altered[i] ^= 0x01
		refused(fmt.Sprintf("bit 0 of byte %d flipped", i), altered)
		altered[i] ^= 0x81
		refused(fmt.Sprintf("bit 7 of byte %d flipped", i), altered)
		refused(fmt.Sprintf("cut off at byte %d", i), raw[:i])
	}
	refused("a byte more", append(bytes.Clone(raw), 0))
}

// compose builds a stream with a right digest around arbitrary bytes, to reach the rules behind it.
func compose(start string, version uint32, parts ...[]byte) []byte {
	raw := binary.BigEndian.AppendUint32([]byte(start), version)
	raw = append(raw, bytes.Join(parts, nil)...)
	sum := sha256.Sum256(raw)
	return append(raw, sum[:]...)
}

func delimited(t *testing.T, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	require.NoError(t, err)
	return append(binary.AppendUvarint(nil, uint64(len(raw))), raw...)
}

func TestSnapshotRefusals(t *testing.T) {
	header := func(records, rows uint64) []byte { return delimited(t, sampleHeader(records, rows)) }
	record := func(m *statev1.SnapshotRecord) []byte { return delimited(t, m) }
	end := []byte{0}
	unknown := rowRecord("domains", "a", "", 1)
	unknown.GetRow().ProtoReflect().SetUnknown([]byte{0x78, 0x01})
	unnamed := sampleHeader(0, 0)
	unnamed.ClusterId = ""
	timeless, mistimed := sampleHeader(0, 0), sampleHeader(0, 0)
	timeless.Time, mistimed.Time = nil, &timestamppb.Timestamp{Seconds: 5, Nanos: -1}

	for name, c := range map[string]struct {
		raw  []byte
		is   error
		text string
	}{
		"empty":         {nil, ErrNotSnapshot, "this is not an Entente snapshot"},
		"another file":  {[]byte("-----BEGIN CERTIFICATE-----\n"), ErrNotSnapshot, "this is not an Entente snapshot"},
		"newer version": {compose(magic, 2), ErrVersion, "it has format 2, and this is format 1"},
		"no header":     {compose(magic, 1, end), ErrDamaged, "its header is empty"},
		"no cluster":    {compose(magic, 1, delimited(t, unnamed), end), ErrDamaged, "its header names no cluster"},
		"no time":       {compose(magic, 1, delimited(t, timeless), end), ErrDamaged, "its header has no time"},
		"no such time": {
			compose(magic, 1, delimited(t, mistimed), end), ErrDamaged,
			"its header's time is not a time: it has 5 seconds and -1 nanoseconds",
		},
		"impossible": {compose(magic, 1, header(1, 2)), ErrDamaged, "announces 2 rows among 1 records"},
		"huge record": {
			compose(magic, 1, header(1, 1), binary.AppendUvarint(nil, 1<<20+1)), ErrDamaged,
			"has 1048577 bytes; the limit is 1048576",
		},
		"long length": {
			compose(magic, 1, header(1, 1), []byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x01}), ErrDamaged, "is too long",
		},
		"padded length": {compose(magic, 1, header(0, 0), []byte{0x80, 0x00}), ErrDamaged, "not in its shortest form"},
		"too many": {
			compose(magic, 1, header(0, 0), record(rowRecord("a", "b", "", 1)), end), ErrDamaged,
			"more than the 0 records",
		},
		"too few": {
			compose(magic, 1, header(2, 1), record(rowRecord("a", "b", "", 1)), end), ErrDamaged,
			"ends 1 records before the 2",
		},
		"miscounted": {
			compose(magic, 1, header(1, 0), record(rowRecord("a", "b", "", 1)), end), ErrDamaged,
			"holds 1 rows, and its header announces 0",
		},
		"twice": {
			compose(magic, 1, header(2, 2), record(rowRecord("a", "b", "", 1)),
				record(rowRecord("a", "b", "", 1)), end),
			ErrDamaged, `the record row "b" of "a" comes after row "b" of "a"`,
		},
		"out of order": {
			compose(magic, 1, header(2, 2), record(rowRecord("b", "a", "", 1)),
				record(rowRecord("a", "b", "", 1)), end),
			ErrDamaged, `the record row "b" of "a" comes after row "a" of "b"`,
		},
		"no revision": {
			compose(magic, 1, header(1, 1), record(rowRecord("a", "b", "", 0)), end), ErrDamaged,
			`a record is incomplete: row "b" of "a"`,
		},
		"bad table": {
			compose(magic, 1, header(1, 1), record(rowRecord("a\x00", "b", "", 1)), end), ErrDamaged,
			"a record is incomplete",
		},
		"unknown kind": {
			compose(magic, 1, header(1, 0), []byte{2, 0x78, 0x01}, end), ErrDamaged, "has an unknown field 15",
		},
		"empty kind": {
			compose(magic, 1, header(1, 0), []byte{2, 0x0a, 0x00}, end), ErrDamaged, "a record is incomplete",
		},
		"unknown field": {compose(magic, 1, header(1, 1), record(unknown), end), ErrDamaged, "has an unknown field 15"},
		"not protobuf":  {compose(magic, 1, header(1, 1), []byte{1, 0xff}, end), ErrDamaged, "is not well formed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Inspect(bytes.NewReader(c.raw))
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.text)
		})
	}
}

// A failing disk is not a damaged snapshot: the operator should try again, and keep it.
func TestSnapshotReadError(t *testing.T) {
	broken := errors.New("input/output error")
	raw := writeSample(t)
	for _, at := range []int{0, 5, 20, len(raw) - 3, len(raw)} {
		_, err := Inspect(io.MultiReader(bytes.NewReader(raw[:at]), iotest.ErrReader(broken)))
		require.ErrorIs(t, err, broken, "at byte %d", at)
		require.NotErrorIs(t, err, ErrDamaged)
		require.NotErrorIs(t, err, ErrNotSnapshot)
	}
}

func TestSnapshotWriterRefuses(t *testing.T) {
	w, err := NewWriter(io.Discard, sampleHeader(1, 1))
	require.NoError(t, err)
	_, err = w.Finish()
	require.ErrorContains(t, err, "1 records fewer than its header announced")
	require.NoError(t, w.Write(rowRecord("a", "b", "", 1)))
	require.ErrorContains(t, w.Write(rowRecord("a", "c", "", 1)), "more records than its header announced")

	w, err = NewWriter(io.Discard, sampleHeader(1, 1))
	require.NoError(t, err)
	err = w.Write(rowRecord("a", "b", string(make([]byte, maxRecordBytes)), 1))
	require.ErrorContains(t, err, "is over the limit of 1048576")
}

// FuzzSnapshotReader looks for a stream that makes the reader panic, or that it accepts without its being exactly what
// the writer would have written.
func FuzzSnapshotReader(f *testing.F) {
	raw := writeSample(f)
	f.Add(raw)
	f.Add(raw[:len(raw)/2])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, body []byte) {
		// With a wrong digest nothing would get past the end.
		sum := sha256.Sum256(body)
		stream := append(bytes.Clone(body), sum[:]...)
		r, err := NewReader(bytes.NewReader(stream))
		if err != nil {
			return
		}
		var out bytes.Buffer
		w, err := NewWriter(&out, r.Header())
		require.NoError(t, err)
		for {
			record, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			require.NoError(t, w.Write(record))
		}
		info, err := w.Finish()
		require.NoError(t, err)
		require.Equal(t, r.info.Rows, info.Rows)
		again, err := Inspect(&out)
		require.NoError(t, err)
		require.Equal(t, info, again)
	})
}
