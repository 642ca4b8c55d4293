package disk

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pausedChild makes the test binary the process that [TestPausedProcessIsNoHungDisk] pauses.
const pausedChild = "ENTENTE_TEST_PAUSED_CHILD"

// TestMain runs the child of [TestPausedProcessIsNoHungDisk].
func TestMain(m *testing.M) {
	if text := os.Getenv(pausedChild); text != "" {
		limit, err := time.ParseDuration(text)
		if err != nil {
			panic(err)
		}
		fmt.Println(watched(limit, os.Stdin, func() { fmt.Println("begun") }))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// watched watches a call that ends a portion of the limit after the input has ended, and returns what the watchdog
// reports until then.
func watched(limit time.Duration, input io.Reader, begun func()) string {
	failed := make(chan error, 1)
	w := &watchdog{limit: limit, observe: func(time.Duration) {}, fail: func(err error) { failed <- err }}
	end := w.begin("writing to the log")
	begun()
	_, _ = io.Copy(io.Discard, input)
	select {
	case err := <-failed:
		return err.Error()
	case <-time.After(limit / portions):
	}
	end()
	return "returned in time"
}

// TestPausedProcessIsNoHungDisk pauses a process for longer than a call may take, as a snapshot of a virtual machine
// or SIGSTOP does. The call had no chance to return meanwhile: it has the rest of its time after the pause. A call that
// does not return is still noticed, in the same process.
func TestPausedProcessIsNoHungDisk(t *testing.T) {
	const limit = 8 * time.Second
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), pausedChild+"="+limit.String())
	input, err := child.StdinPipe()
	require.NoError(t, err)
	output, err := child.StdoutPipe()
	require.NoError(t, err)
	child.Stderr = os.Stderr
	require.NoError(t, child.Start())
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	lines := bufio.NewScanner(output)
	require.True(t, lines.Scan(), "the child has not begun: %v", lines.Err())
	require.Equal(t, "begun", lines.Text())

	require.NoError(t, child.Process.Signal(syscall.SIGSTOP))
	// The disk answers during the pause, so that the call can return as soon as the process runs again.
	require.NoError(t, input.Close())
	<-time.After(limit + time.Second)
	require.NoError(t, child.Process.Signal(syscall.SIGCONT))
	require.True(t, lines.Scan(), "no result: %v", lines.Err())
	require.Equal(t, "returned in time", lines.Text())

	hung, release := io.Pipe()
	t.Cleanup(func() { _ = release.Close() })
	failed := make(chan error, 1)
	w := &watchdog{
		limit: 40 * time.Millisecond, observe: func(time.Duration) {}, fail: func(err error) { failed <- err },
	}
	go func() {
		defer w.begin("writing to the log")()
		_, _ = io.Copy(io.Discard, hung)
	}()
	require.ErrorContains(t, <-failed, "member stopped: writing to the log has not returned for 40ms; ")
}
