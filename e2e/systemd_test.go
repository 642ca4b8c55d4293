package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestSystemd runs a member under the protocol of systemd: it is ready before it can do anything, so that it is not
// killed while it waits for others, its status says what it waits for, and the watchdog is reset. A reload applies all
// that has changed, or nothing.
func TestSystemd(t *testing.T) {
	c := newCluster(t, "eu", 1, "")
	token, err := c.members[0].socket().Cluster().CreateJoinToken(t.Context(), &ententev1.CreateJoinTokenRequest{
		MemberId: c.nextID(),
	})
	require.NoError(t, err)
	p := c.add(token.GetToken(), c.members[0].api)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(p.dir, "notify"), Net: "unixgram"})
	require.NoError(t, err)
	defer manager.Close()
	p.env = append(p.env, "NOTIFY_SOCKET="+manager.LocalAddr().String(), "WATCHDOG_USEC=3000000")
	awaitMessage := func(parts ...string) string {
		t.Helper()
		var last []string
		require.NoError(t, manager.SetReadDeadline(time.Now().Add(waitLimit)))
		for {
			buffer := make([]byte, 64<<10)
			n, err := manager.Read(buffer)
			require.NoError(t, err, "systemd waits for %q and had %q", parts, last)
			message := string(buffer[:n])
			last = append(last, message)
			missing := false
			for _, part := range parts {
				missing = missing || !strings.Contains(message, part)
			}
			if !missing {
				return message
			}
		}
	}

	p.run()
	awaitMessage("READY=1", "STATUS=eu-2 starts: ")
	awaitMessage("WATCHDOG=1")
	eventually(t, "the joiner waits for approval", func() error {
		request := &ententev1.ApproveMemberRequest{Id: "eu-2"}
		_, err := c.members[0].socket().Cluster().ApproveMember(t.Context(), request)
		return err
	})
	awaitMessage("STATUS=eu-2 of cluster eu, leader eu-", ", 2 voters: ready")
	awaitMessage("WATCHDOG=1")

	file := filepath.Join(p.dir, "entente.hcl")
	original, err := os.ReadFile(file)
	require.NoError(t, err)
	rewrite := func(old, with string) {
		t.Helper()
		require.Contains(t, string(original), old)
		text := strings.Replace(string(original), old, with, 1)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
		awaitMessage("RELOADING=1", "MONOTONIC_USEC=")
	}
	ops := fmt.Sprintf("telemetry {\n  listen = %q\n", p.ops)
	rewrite(ops, ops+"  log_level = \"debug\"\n")
	awaitMessage("READY=1", "2 voters: ready")
	eventually(t, "the reload is in the log", func() error {
		for _, want := range []string{`reloaded the configuration: changed=["telemetry.log_level"]`, "[DEBUG]"} {
			if !strings.Contains(p.logs(), want) {
				return fmt.Errorf("the log has no %q", want)
			}
		}
		return nil
	})

	rewrite(ops, "authority { issue_rate = 7 }\ntelemetry {\n  listen = \"127.0.0.1:1\"\n")
	refusal := awaitMessage("READY=1", "reload refused: telemetry.listen: restart the member")
	require.Contains(t, refusal, "nothing was changed")
	rewrite("telemetry {", "telemetri {")
	awaitMessage("READY=1", "reload refused: ", `entente.hcl:`)

	c.members[0].stop()
	awaitMessage("STATUS=", "no leader")
	awaitMessage("WATCHDOG=1")
	p.stop()
	awaitMessage("STOPPING=1")
}
