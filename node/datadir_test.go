package node

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDataFolderIsLockedByOneProcess(t *testing.T) {
	dir := t.TempDir() + "/data"
	first, err := openDataDir(dir)
	require.NoError(t, err)
	_, err = openDataDir(dir)
	require.EqualError(t, err, "data folder "+dir+" is in use by another entente server; stop that one, or give this "+
		"one a folder of its own")
	require.NoError(t, first.close())
	second, err := openDataDir(dir)
	require.NoError(t, err)
	require.NoError(t, second.close())
}
