package datadir_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/datadir"
)

func TestDataFolderOfOthersIsRefused(t *testing.T) {
	dir := t.TempDir() + "/data"
	require.NoError(t, os.Mkdir(dir, 0o755))
	_, err := datadir.Open(dir)
	require.EqualError(t, err, "the data folder "+dir+" has mode 0755, so that others can reach the private keys in "+
		"it; run chmod 0700 "+dir+", or set member.data_dir to a new folder below it")
	require.NoFileExists(t, dir+"/lock")
	require.NoError(t, os.Chmod(dir, 0o700))
	data, err := datadir.Open(dir)
	require.NoError(t, err)
	require.NoError(t, data.Close())
}

func TestDataFolderIsLockedByOneProcess(t *testing.T) {
	dir := t.TempDir() + "/data"
	first, err := datadir.Open(dir)
	require.NoError(t, err)
	_, err = datadir.Open(dir)
	require.EqualError(t, err, "data folder "+dir+" is in use by another entente server; stop that one, or give this "+
		"one a folder of its own")
	require.NoError(t, first.Close())
	second, err := datadir.Open(dir)
	require.NoError(t, err)
	require.NoError(t, second.Close())
}

func TestLostIdentity(t *testing.T) {
	data, err := datadir.Open(t.TempDir() + "/data")
	require.NoError(t, err)
	_, err = data.LoadIdentity()
	require.NoError(t, err, "a new member makes a key")
	require.NoError(t, os.Mkdir(data.File("raft"), 0o700))
	_, err = data.LoadIdentity()
	require.NoError(t, err)
	require.NoError(t, os.Remove(data.File("identity.pem")))
	_, err = data.LoadIdentity()
	require.EqualError(t, err, "identity key "+data.File("identity.pem")+" is missing, and its member has a log: "+
		"restore it from a copy, or remove this member from the cluster, empty its data folder and join again")
	require.NoFileExists(t, data.File("identity.pem"))
}
