package access

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAdminSocketRefusesOtherUsers(t *testing.T) {
	dir, err := os.MkdirTemp("", "s")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	listener, err := ListenSocket(filepath.Join(dir, "s"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	client, err := net.Dial("unix", filepath.Join(dir, "s"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	server, err := listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })

	var asked uint32
	_, _, err = socketCredentials{admits: func(uid uint32) bool { asked = uid; return false }}.ServerHandshake(server)
	require.ErrorContains(t, err, "may not use the admin socket: only root and the server's own user may")
	require.Equal(t, os.Getuid(), int(asked))
	_, info, err := SocketCredentials().(socketCredentials).ServerHandshake(server)
	require.NoError(t, err)
	require.Equal(t, SocketCaller(uint32(os.Getuid()), int32(os.Getpid())), info.(Identified).AccessCaller())
}
