package workload

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseStart(t *testing.T) {
	const tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"
	for stat, want := range map[string]uint64{
		"1 (sh)" + tail:          4242,
		"1 (a b) c) 7" + tail:    0, // the name ends at the last parenthesis
		"1 (evil) S 1 2)" + tail: 4242,
	} {
		got, err := parseStart(stat)
		require.NoError(t, err, stat)
		if want != 0 {
			require.Equal(t, want, got, stat)
		}
	}
	for _, stat := range []string{"", "1 sh S", "1 (sh) S 1"} {
		_, err := parseStart(stat)
		require.Error(t, err, stat)
	}
}

// connected returns the server's end of a Unix socket whose client is this process.
func connected(t *testing.T) (server, client *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer l.Close()
	made, err := net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = made.Close() })
	accepted, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = accepted.Close() })
	return accepted.(*net.UnixConn), made.(*net.UnixConn)
}

func TestPeerIsThisProcess(t *testing.T) {
	server, _ := connected(t)
	p, err := peerOf(server)
	require.NoError(t, err)
	defer p.release()
	require.EqualValues(t, os.Getpid(), p.PID)
	require.EqualValues(t, os.Getuid(), p.UID)
	selectors, err := Attest(t.Context(), p, []Attestor{Unix{}})
	require.NoError(t, err)
	require.True(t, slices.IsSorted(selectors))
	require.Subset(t, selectors, []string{
		"unix:uid:" + strconv.Itoa(os.Getuid()), "unix:gid:" + strconv.Itoa(os.Getgid()),
	})
	without, err := Attest(t.Context(), p, []Attestor{Unix{Uses: func(string) bool { return false }}})
	require.NoError(t, err)
	require.Len(t, without, len(selectors)-1, "the digest is left out that no entry needs")
	_, err = Attest(t.Context(), p, []Attestor{Unix{MaxBinary: 1}})
	require.ErrorContains(t, err, "larger than 1 bytes")
	p.release()
	p.release() // a second time does nothing
}

// TestProcessThatEndsIsNotAttested attests a process that has ended, by its descriptor and by its start time, and one
// that has the PID of another.
func TestProcessThatEndsIsNotAttested(t *testing.T) {
	other := exec.Command("sleep", "600")
	require.NoError(t, other.Start())
	start, err := startOf(int32(other.Process.Pid))
	require.NoError(t, err)
	server, _ := connected(t)
	p, err := peerOf(server)
	require.NoError(t, err)
	defer p.release()
	p.PID, p.start = int32(other.Process.Pid), start
	require.NoError(t, p.alive())
	p.start = start + 1
	require.ErrorIs(t, p.alive(), ErrGone, "another process has its PID")
	p.start = start
	require.NoError(t, other.Process.Kill())
	_ = other.Wait() // it was killed
	_, err = Attest(t.Context(), p, []Attestor{Unix{}})
	require.ErrorIs(t, err, ErrGone)
}

// broken is an attestor that fails.
type broken struct{}

func (broken) Type() string { return "broken" }

func (broken) Attest(context.Context, Process) ([]string, error) { return nil, errors.New("no") }

func TestOneAttestorFails(t *testing.T) {
	server, _ := connected(t)
	p, err := peerOf(server)
	require.NoError(t, err)
	defer p.release()
	_, err = Attest(t.Context(), p, []Attestor{Unix{}, broken{}})
	require.ErrorContains(t, err, "by broken: no")
}
