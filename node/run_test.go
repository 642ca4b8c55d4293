package node

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/config"
)

// TestRepeatedLines: the log of a member has one line for what repeats, whichever part writes it, with the number.
func TestRepeatedLines(t *testing.T) {
	var out bytes.Buffer
	log, throttle := newLog(config.Telemetry{LogLevel: "info", LogFormat: "text"}, &out)
	for range 100 {
		log.Named("store").Named("raft").Error("failed to make requestVote RPC", "error", "no space left on device")
	}
	require.Equal(t, 5, strings.Count(out.String(), "\n"), out.String())
	out.Reset()
	throttle.Close()
	require.Contains(t, out.String(), "entente.store.raft: failed to make requestVote RPC: omitted=95\n")
}
