package xds

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Only the user can use a socket, from the first moment. A stale socket is replaced, and nothing else.
func TestListenUnix(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	path := filepath.Join(t.TempDir(), "xds.sock")
	first, err := listenUnix(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	_, err = listenUnix(path)
	require.ErrorContains(t, err, "another process listens at "+path+": ")
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, first.Close())
	second, err := listenUnix(path)
	require.NoError(t, err)
	require.NoError(t, second.Close())
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	_, err = listenUnix(path)
	require.ErrorContains(t, err, "address already in use")
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "mine", string(kept))
}
