package supervisor_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/supervisor"
)

// systemd receives what a supervisor sends, as the socket in NOTIFY_SOCKET.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
}

func newSystemd(t *testing.T) *systemd {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	t.Setenv("NOTIFY_SOCKET", path)
	return &systemd{t, conn}
}

// next returns the next message.
func (s *systemd) next() string {
	buffer := make([]byte, 4096)
	require.NoError(s.t, s.conn.SetReadDeadline(time.Now().Add(time.Minute)))
	n, err := s.conn.Read(buffer)
	require.NoError(s.t, err)
	return string(buffer[:n])
}

// await returns once a message has a line.
func (s *systemd) await(line string) {
	for !strings.Contains("\n"+s.next()+"\n", "\n"+line+"\n") {
		s.t.Log("another message")
	}
}

// A member that loads its state for long is not killed, and is reported as ready once it has.
func TestReady(t *testing.T) {
	manager := newSystemd(t)
	var status atomic.Pointer[string]
	set := func(s string) { status.Store(&s) }
	set("eu-1 starts:\nno leader")
	s := supervisor.New(supervisor.Config{Status: func() string { return *status.Load() }, Log: hclog.NewNullLogger()})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	require.Equal(t, "EXTEND_TIMEOUT_USEC=30000000", manager.next())
	require.Equal(t, "STATUS=eu-1 starts: no leader", manager.next())
	s.Ready()
	s.Ready() // once
	require.Equal(t, "READY=1\nSTATUS=eu-1 starts: no leader", manager.next())
	set("leader eu-2")
	manager.await("STATUS=leader eu-2")
	s.Reloading()
	require.Contains(t, manager.next(), "RELOADING=1\nMONOTONIC_USEC=")
	s.Reloaded(errors.New("listen: restart\nthe member"))
	manager.await("STATUS=leader eu-2; reload refused: listen: restart the member")
	s.Reloaded(nil)
	manager.await("STATUS=leader eu-2")
	s.Stopping()
	manager.await("STOPPING=1")
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// The watchdog is reset after each check that succeeds, and after no other.
func TestWatchdog(t *testing.T) {
	manager := newSystemd(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	checks := make(chan error)
	s := supervisor.New(supervisor.Config{
		Status: func() string { return "the same" },
		// It ignores the end of its context, so that the test decides on each check.
		Alive: func(context.Context) error { return <-checks },
		Log:   hclog.NewNullLogger(),
	})
	s.Ready()
	require.Equal(t, "READY=1\nSTATUS=the same", manager.next())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	for range 3 {
		checks <- errors.New("the admin socket does not answer")
	}
	checks <- nil
	checks <- errors.New("again") // now the check before has sent what it sends
	stop()
	for running := true; running; {
		select {
		case checks <- errors.New("stopped"):
		case err := <-ended:
			require.ErrorIs(t, err, context.Canceled)
			running = false
		}
	}
	s.Stopping()
	resets := 0
	for message := ""; !strings.HasPrefix(message, "STOPPING=1"); message = manager.next() {
		if message == "WATCHDOG=1" {
			resets++
		}
	}
	require.Equal(t, 1, resets)
}

// Without systemd there is nothing to report to, and nothing is checked.
func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s := supervisor.New(supervisor.Config{
		Status: func() string { return "" },
		Alive:  func(context.Context) error { panic("checked") },
		Log:    hclog.NewNullLogger(),
	})
	s.Ready()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	require.ErrorIs(t, s.Run(ctx), context.Canceled)
}
