package membership

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/raftstore"
)

func requireRefusal(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if code == codes.OK {
		require.NoError(t, err)
		return
	}
	require.Equal(t, code, status.Code(err), "%v", err)
	require.ErrorContains(t, err, text)
}

func TestRemovable(t *testing.T) {
	server := func(id string, voter bool) raftstore.Server { return raftstore.Server{MemberID: id, Voter: voter} }
	three := []raftstore.Server{server("a", true), server("b", true), server("c", true)}
	for name, c := range map[string]struct {
		servers   []raftstore.Server
		reachable string
		target    string
		code      codes.Code
		text      string
	}{
		"one of three": {servers: three, reachable: "abc", target: "b"},
		"the dead one": {servers: three, reachable: "ab", target: "c"},
		"a living one beside it": {
			servers: three, reachable: "ab", target: "b", code: codes.FailedPrecondition,
			text: "without member b only 1 of 2 members with a vote are reachable, no majority; remove or repair " +
				"[c] first",
		},
		"the last one": {
			servers: three[:1], reachable: "a", target: "a", code: codes.FailedPrecondition,
			text: "member a is the last one with a vote",
		},
		"the last vote": {
			servers: []raftstore.Server{server("a", true), server("b", false)}, reachable: "ab", target: "a",
			code: codes.FailedPrecondition, text: "is the last one with a vote",
		},
		"one without a vote": {
			servers: []raftstore.Server{server("a", true), server("b", false)}, reachable: "a", target: "b",
		},
		"one of two":              {servers: three[:2], reachable: "ab", target: "a"},
		"one that is not in Raft": {servers: three, reachable: "a", target: "d"},
	} {
		t.Run(name, func(t *testing.T) {
			reachable := func(id string) bool { return strings.Contains(c.reachable, id) }
			requireRefusal(t, removable(c.servers, reachable, c.target), c.code, c.text)
		})
	}
}

func TestMarks(t *testing.T) {
	reachable := func(ids ...string) func(string) bool {
		return func(id string) bool { return slices.Contains(ids, id) }
	}
	on, off := marks([]string{"a", "b"}, []string{"a"}, reachable("a", "b"), true)
	assert.Equal(t, []string{"b"}, on)
	assert.Empty(t, off)
	on, off = marks([]string{"a", "b"}, []string{"a", "b"}, reachable("a"), true)
	assert.Empty(t, on)
	assert.Equal(t, []string{"b"}, off)
	_, off = marks([]string{"a", "b"}, []string{"a", "b"}, reachable("a"), false)
	assert.Empty(t, off, "a new leader gives every member the time for a heartbeat")
	_, off = marks([]string{"a"}, []string{"a", "b"}, reachable("a", "b"), false)
	assert.Equal(t, []string{"b"}, off, "only a member is alive")
}

func TestClockDistance(t *testing.T) {
	for name, c := range map[string]struct {
		offsets map[string]time.Duration
		of      string
		voters  int
		want    time.Duration
		known   bool
	}{
		"alone":                   {map[string]time.Duration{"a": 0}, "a", 1, 0, true},
		"no majority":             {map[string]time.Duration{"a": 0}, "a", 3, 0, false},
		"no heartbeat of its own": {map[string]time.Duration{"a": 0, "b": 0}, "c", 3, 0, false},
		"two of three agree": {
			map[string]time.Duration{"a": 0, "b": time.Second, "c": time.Hour}, "a", 3, time.Second, true,
		},
		"the third is off": {
			map[string]time.Duration{"a": 0, "b": time.Second, "c": time.Hour}, "c", 3, time.Hour - time.Second, true,
		},
		"the leader itself is off": {
			map[string]time.Duration{"a": 0, "b": time.Hour, "c": time.Hour}, "a", 3, time.Hour, true,
		},
		"of two, both must agree": {
			map[string]time.Duration{"a": 0, "b": -6 * time.Minute}, "b", 2, 6 * time.Minute, true,
		},
		"behind and ahead count alike": {
			map[string]time.Duration{"a": 0, "b": -time.Minute, "c": 2 * time.Minute}, "a", 3, time.Minute, true,
		},
		"of five, the third nearest is": {
			map[string]time.Duration{"a": 0, "b": 1, "c": 2, "d": time.Hour, "e": time.Hour}, "a", 5, 2, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, known := clockDistance(c.offsets, c.of, c.voters)
			assert.Equal(t, c.known, known)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestLastHeard(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	none := time.Time{}
	for name, test := range map[string]struct {
		received, before, recorded time.Time
		marked                     bool
		want                       time.Time
	}{
		"a heartbeat in this term":              {at(20), at(9), at(3), true, at(20)},
		"the leader before":                     {none, at(9), at(3), true, at(9)},
		"another one, which was heard before":   {none, none, at(3), true, at(10)},
		"one that was gone under a leader":      {none, none, at(3), false, at(3)},
		"a leader before that was gone already": {none, at(2), at(3), false, at(3)},
		"one that was never heard":              {none, none, none, false, none},
	} {
		require.Equal(t, test.want, lastHeard(test.received, test.before, test.recorded, at(10), test.marked), name)
	}
}
