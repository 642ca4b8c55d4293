package access_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ententehq/entente/access"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

func TestAdminSocket(t *testing.T) {
	h := build(t)
	dir, err := os.MkdirTemp("", "s") // t.TempDir can be too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	path := filepath.Join(dir, "admin.sock")
	listener, err := access.ListenSocket(path)
	require.NoError(t, err)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o600, info.Mode())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing else is left beside it")

	server := grpc.NewServer(append(h.guard.ServerOptions(), grpc.Creds(access.SocketCredentials()))...)
	v1.RegisterDomainServiceServer(server, h.domains)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	_, err = v1.NewDomainServiceClient(conn).CreateDomain(context.Background(), create("pay.test"))
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("admin socket (uid %d, pid %d)|DomainService/CreateDomain|pay.test|begun", os.Getuid(),
		os.Getpid()), h.lines(t)[0])

	_, err = access.ListenSocket(path)
	require.EqualError(t, err, "open the admin socket "+path+": another server answers there: stop it, or give this "+
		"one a data_dir of its own")
	require.NoError(t, conn.Close())
	server.Stop()
	require.NoError(t, <-served)
	require.NoFileExists(t, path)
}

func TestAdminSocketReplacesADeadOne(t *testing.T) {
	dir, err := os.MkdirTemp("", "s")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	path := filepath.Join(dir, "admin.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	dead.SetUnlinkOnClose(false)
	require.NoError(t, dead.Close())
	listener, err := access.ListenSocket(path)
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	require.NoFileExists(t, path)

	require.NoError(t, os.WriteFile(path, []byte("a file"), 0o600))
	_, err = access.ListenSocket(path)
	require.EqualError(t, err, "open the admin socket "+path+": there is something that is not a socket: move it away")
	require.NoError(t, os.Chmod(dir, 0o711))
	_, err = access.ListenSocket(filepath.Join(dir, "other.sock"))
	require.EqualError(t, err, "open the admin socket "+dir+"/other.sock: the folder of the socket "+dir+" has mode "+
		"0711, so that others can reach the private keys in it; run chmod 0700 "+dir)
	require.NoError(t, os.Chmod(dir, 0o700))
	long := filepath.Join(dir, strings.Repeat("a-long-name-", 10))
	_, err = access.ListenSocket(long)
	require.ErrorContains(t, err, "too long for a Unix socket (103 bytes at most): choose a shorter data_dir")
}
