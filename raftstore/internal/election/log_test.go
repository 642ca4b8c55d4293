package election

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// TestLogger: what a usual start, join or change of leader logs is information. What points to a fault stays as it is.
func TestLogger(t *testing.T) {
	election := []any{"last-leader-addr", raft.ServerAddress(""), "last-leader-id", raft.ServerID("")}
	lost := []any{"last-leader-addr", raft.ServerAddress("a:1"), "last-leader-id", raft.ServerID("eu-1")}
	notFound := fmt.Errorf("entry 7: %w", raft.ErrLogNotFound)
	for _, test := range []struct {
		level   hclog.Level
		message string
		args    []any
		want    string
	}{
		{hclog.Warn, "heartbeat timeout reached, starting election", election, "INFO"},
		{hclog.Warn, "heartbeat timeout reached, starting election", lost, "WARN"},
		{hclog.Warn, "no known peers, aborting election", nil, "INFO"},
		{hclog.Warn, "appendEntries rejected, sending older logs", []any{"peer", "eu-2", "next", 1}, "INFO"},
		{hclog.Warn, "failed to get previous log", []any{"previous-index", 7, "error", notFound}, "INFO"},
		{hclog.Warn, "failed to get previous log", []any{"error", errors.New("checksum")}, "WARN"},
		{hclog.Error, "peer has newer term, stopping replication", []any{"peer", "eu-2"}, "INFO"},
		{hclog.Error, "failed to appendEntries to", []any{"peer", raft.Server{Suffrage: raft.Nonvoter}}, "INFO"},
		{hclog.Error, "failed to appendEntries to", []any{"peer", raft.Server{Suffrage: raft.Voter}}, "ERROR"},
		{hclog.Error, "failed to heartbeat to", []any{"peer", "a:1", "backoff time", 20 * time.Millisecond}, "INFO"},
		{hclog.Error, "failed to heartbeat to", []any{"peer", "a:1", "backoff time", 320 * time.Millisecond}, "ERROR"},
		{hclog.Warn, "failed to contact", []any{"server-id", "eu-2"}, "WARN"},
	} {
		var out bytes.Buffer
		log := Logger(hclog.New(&hclog.LoggerOptions{Output: &out, DisableTime: true}))
		if test.level == hclog.Error {
			log.Error(test.message, test.args...)
		} else {
			log.Warn(test.message, test.args...)
		}
		require.Contains(t, out.String(), "["+test.want+"]", test.message)
		require.Contains(t, out.String(), strings.TrimSpace(test.message))
	}
}
