package directory_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/membership/directory"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "members")
	d := directory.New("m1", nil)
	require.NoError(t, d.Save(path))
	require.NoFileExists(t, path, "nobody is known")
	_, err := d.Learn(7, []*ententev1.MemberIdentity{
		{Id: "m1", Address: "one:1", Identity: make([]byte, 32)},
		{Id: "m2", Address: "two:2", Identity: make([]byte, 32)},
	})
	require.NoError(t, err)
	require.NoError(t, d.Save(path))

	loaded := directory.New("m1", nil)
	require.NoError(t, loaded.Load(path))
	address, _, known := loaded.Locate("m2")
	require.True(t, known)
	require.Equal(t, "two:2", address)
	saved, err := os.ReadFile(path)
	require.NoError(t, err)
	for bit := range 8 * len(saved) {
		saved[bit/8] ^= 1 << (bit % 8)
		require.NoError(t, os.WriteFile(path, saved, 0o600))
		require.EqualError(t, directory.New("m1", nil).Load(path),
			"read the members from "+path+": its checksum does not match", "bit %d", bit)
		saved[bit/8] ^= 1 << (bit % 8)
	}
	require.NoError(t, os.Truncate(path, 5))
	require.ErrorContains(t, directory.New("m1", nil).Load(path), "its checksum does not match")
}
