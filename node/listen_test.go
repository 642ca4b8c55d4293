package node

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestListenOnUsedPort(t *testing.T) {
	taken, err := listen("members and clients", "member.listen", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	address := taken.Addr().String()
	_, err = listen("operations", "telemetry.listen", address)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.EqualError(t, err, "listen for operations: listen tcp "+address+": bind: address already in use: stop "+
		"what listens on "+address+", or set telemetry.listen to another address")
}

func TestListenOnOtherAddress(t *testing.T) {
	_, err := listen("members and clients", "member.listen", "192.0.2.1:7440")
	require.ErrorContains(t, err, "listen for members and clients: ")
	require.ErrorContains(t, err, ": set member.listen to an address of this machine that its user may listen on")
}
