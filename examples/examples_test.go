// Package examples tests the example programs.
package examples_test

import (
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/shorttest"
	"github.com/ententehq/entente/node/nodetest"
)

func TestMutualTLS(t *testing.T) {
	shorttest.Skip(t, "builds programs and runs them")
	member, err := nodetest.Start()
	require.NoError(t, err)
	defer func() { require.NoError(t, member.Close()) }()
	dir := t.TempDir()
	out, err := exec.Command("go", "build", "-o", dir, "./mtls-server", "./mtls-client").CombinedOutput()
	require.NoError(t, err, string(out))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	server := exec.Command(filepath.Join(dir, "mtls-server"), "--socket", member.Socket, "--listen", l.Addr().String())
	require.NoError(t, server.Start())
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()

	// The client waits until the server is registered, which listens before it registers.
	reply, err := exec.Command(filepath.Join(dir, "mtls-client"), "--socket", member.Socket).CombinedOutput()
	require.NoError(t, err, string(reply))
	require.Equal(t, "Hello, spiffe://dev.example.org/web.\n", string(reply))

	require.NoError(t, server.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-ended)
}
