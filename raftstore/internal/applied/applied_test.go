package applied

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func once(_ string, fn func() error) error { return fn() }

func open(t *testing.T, path string) *File {
	f, err := Open(path, once)
	require.NoError(t, err)
	return f
}

// TestRecordsSurvive reopens the file without closing it, as after kill -9.
func TestRecordsSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "applied")
	contact := time.Unix(1_800_000_000, 5)
	f := open(t, path)
	require.Equal(t, Record{}, f.Last())
	for _, step := range []struct {
		do   func() error
		want Record
	}{
		{func() error { return f.Record(7, true) }, Record{Revision: 7, Known: true}},
		{func() error { return f.Record(9, false) }, Record{Revision: 9, Known: true}},
		{func() error { return f.Record(8, false) }, Record{Revision: 9, Known: true}},
		{func() error { return f.RecordContact(contact) }, Record{Revision: 9, Contact: contact, Known: true}},
		{func() error { return f.Record(12, true) }, Record{Revision: 12, Contact: contact, Known: true}},
	} {
		require.NoError(t, step.do())
		other := open(t, path)
		require.Equal(t, step.want, other.Last())
		require.NoError(t, other.Close())
	}
	require.NoError(t, f.Close())
}

// TestDamageIsNeverBelieved flips every bit of a record. It is then not known, and never too high.
func TestDamageIsNeverBelieved(t *testing.T) {
	for records := uint64(1); records <= 3; records++ {
		page := make([]byte, fileSize)
		for count := uint64(1); count <= records; count++ {
			copy(page[offset(count):], encode(count, Record{Revision: 10 * count}))
		}
		count, r := decode(page)
		require.Equal(t, records, count)
		require.Equal(t, Record{Revision: 10 * records, Known: true}, r)
		for _, at := range []int{0, slotOffset} {
			for bit := range slotSize * 8 {
				page[at+bit/8] ^= 1 << (bit % 8)
				_, r := decode(page)
				page[at+bit/8] ^= 1 << (bit % 8)
				assert.False(t, r.Known, "bit %d of the slot at %d after %d records", bit, at, records)
				assert.LessOrEqual(t, r.Revision, 10*records)
			}
		}
	}
}

// TestRecordsReturnAfterDamage cuts the file at every kind of place. The record is unknown until both slots are
// written.
func TestRecordsReturnAfterDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "applied")
	for _, length := range []int64{0, 1, slotSize - 1, slotSize, slotOffset, slotOffset + slotSize - 1} {
		f := open(t, path)
		for revision := f.Last().Revision + 1; revision <= f.Last().Revision+3; revision++ {
			require.NoError(t, f.Record(revision, false))
		}
		require.NoError(t, f.Close())
		require.NoError(t, os.Truncate(path, length))
		f = open(t, path)
		require.False(t, f.Last().Known, "cut to %d bytes", length)
		require.NoError(t, f.Record(100, false))
		require.NoError(t, f.Record(101, false))
		require.NoError(t, f.Close())
		f = open(t, path)
		require.Equal(t, Record{Revision: 101, Known: true}, f.Last(), "cut to %d bytes", length)
		require.NoError(t, f.Close())
		require.NoError(t, os.Remove(path))
	}
}

// TestRunSyncs returns an error of the disk for what was not synced at once.
func TestRunSyncs(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "applied"))
	require.NoError(t, f.Record(1, false))
	require.NoError(t, f.file.Close())
	require.ErrorIs(t, f.Run(t.Context()), os.ErrClosed)
}

func TestOpenNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "applied")
	_, err := Open(path, once)
	require.EqualError(t, err, "open the record of the applied revision: open "+path+": no such file or directory")
}
