package election

import (
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// usual are lines that Raft logs as warnings or errors although usual starts, joins and changes of leader have them.
var usual = map[string]bool{
	// A joiner waits until the leader has added it, and has none of the entries before that.
	"no known peers, aborting election":                 true,
	"appendEntries rejected, sending older logs":        true,
	"peer has newer term, stopping replication":         true,
	"new leader elected, stepping down":                 true,
	"rejecting pre-vote request since we have a leader": true,
	"rejecting vote request since we have a leader":     true,
}

// notReplicated is the line of a leader that has reached a follower in vain. A joiner knows the leader only once it has
// its answer, a moment after the leader has added it without a vote.
const notReplicated = "failed to appendEntries to"

// noHeartbeat is the line of a leader whose heartbeat was not answered. It names the pause before the next one, which
// doubles from 10ms.
const noHeartbeat = "failed to heartbeat to"

// missingEntry is the line of a follower that does not have the entry before those that the leader has sent.
const missingEntry = "failed to get previous log"

// firstElection is the line with which a member starts an election. Without a leader before it, it is the first one
// after a start.
const firstElection = "heartbeat timeout reached, starting election"

// Logger returns a logger for Raft, which logs as information what belongs to a usual start or change of leader. The
// loss of a leader stays a warning.
func Logger(log hclog.Logger) hclog.Logger { return logger{log} }

type logger struct{ hclog.Logger }

// Warn implements hclog.Logger.
func (l logger) Warn(message string, args ...any) {
	if usual[message] || message == firstElection && !hadLeader(args) ||
		message == missingEntry && isNotFound(args) {
		l.Info(message, args...)
		return
	}
	l.Logger.Warn(message, args...)
}

// Error implements hclog.Logger.
func (l logger) Error(message string, args ...any) {
	if usual[message] || message == notReplicated && isJoining(args) || message == noHeartbeat && isFirst(args) {
		l.Info(message, args...)
		return
	}
	l.Logger.Error(message, args...)
}

// hadLeader reports whether the fields of the line of an election name the leader before it.
func hadLeader(args []any) bool {
	i := slices.Index(args, any("last-leader-id"))
	return i >= 0 && i+1 < len(args) && args[i+1] != raft.ServerID("")
}

// isNotFound reports whether the error among the fields of a line is that an entry is not in the log.
func isNotFound(args []any) bool {
	return slices.ContainsFunc(args, func(arg any) bool {
		err, ok := arg.(error)
		return ok && errors.Is(err, raft.ErrLogNotFound)
	})
}

// isJoining reports whether the fields of a line name a follower without a vote.
func isJoining(args []any) bool {
	return slices.ContainsFunc(args, func(arg any) bool {
		s, ok := arg.(raft.Server)
		return ok && s.Suffrage == raft.Nonvoter
	})
}

// isFirst reports whether the fields of a line name a pause as it is after the first few failures.
func isFirst(args []any) bool {
	const few = 250 * time.Millisecond
	i := slices.Index(args, any("backoff time"))
	if i < 0 || i+1 >= len(args) {
		return false
	}
	pause, ok := args[i+1].(time.Duration)
	return ok && pause < few
}
