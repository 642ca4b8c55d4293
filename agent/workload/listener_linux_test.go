package workload

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestListeners reads a table of the kernel, in the byte order of this machine.
func TestListeners(t *testing.T) {
	word := func(b ...byte) string { return fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b)) }
	zero, loopback := word(0, 0, 0, 0), word(127, 0, 0, 1)
	line := func(local, state, uid string) string {
		return "   0: " + local + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000  " + uid +
			"        0 4242 1 0000000000000000 100 0 0 10 0\n"
	}
	table := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		line(loopback+":280A", "0A", "1") + line(loopback+":280A", "01", "2") + line(loopback+":280B", "0A", "3") +
		line(word(127, 0, 0, 2)+":280A", "0A", "4") + line(zero+":280A", "0A", "5") +
		line(zero+zero+zero+zero+":280A", "0A", "6") + line(zero+zero+zero+word(0, 0, 0, 1)+":280A", "0A", "7") +
		line(zero+zero+word(0, 0, 255, 255)+loopback+":280A", "0A", "8")
	uids, err := listeners(strings.NewReader(table), netip.MustParseAddrPort("127.0.0.1:10250"))
	require.NoError(t, err)
	require.Equal(t, []int{1, 5, 6, 8}, uids)
	uids, err = listeners(strings.NewReader(table), netip.MustParseAddrPort("[::1]:10250"))
	require.NoError(t, err)
	require.Equal(t, []int{5, 6, 7}, uids)
	_, err = listeners(strings.NewReader(line(loopback+":280A", "0A", "x")),
		netip.MustParseAddrPort("127.0.0.1:10250"))
	require.ErrorContains(t, err, `parsing "x"`)
}

// TestListenersOfOtherUsersAreNotCalled has a real listener, looked at as its user and, by a user namespace in which
// that user has no ID, as another one.
func TestListenersOfOtherUsersAreNotCalled(t *testing.T) {
	const of = "ENTENTE_TEST_LISTENER"
	if address := os.Getenv(of); address != "" { // in the namespace
		_, err := dialOwn(t.Context(), "tcp", address)
		require.ErrorContains(t, err, "listens at "+address+", not root, and its certificate is not verified: nothing "+
			"was sent")
		return
	}
	for _, address := range []string{"127.0.0.1:0", ":0"} {
		l, err := net.Listen("tcp", address)
		require.NoError(t, err)
		_, port, err := net.SplitHostPort(l.Addr().String())
		require.NoError(t, err)
		at := net.JoinHostPort("127.0.0.1", port)
		conn, err := dialOwn(t.Context(), "tcp", at)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		cmd := exec.Command("unshare", "--user", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), of+"="+at)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "user namespaces and unshare of util-linux are needed: %s", out)
		require.Contains(t, string(out), "--- PASS")
		require.NoError(t, l.Close())
		_, err = dialOwn(t.Context(), "tcp", at)
		require.ErrorContains(t, err, "nothing listens at "+at)
	}
}
