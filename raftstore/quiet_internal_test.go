package raftstore

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/clocktest"
)

// A leader says to a follower at once whatever that does not know, and goes on saying what it knows at Raft's own pace.
func TestQuietTransport(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		var fails error
		refuses, sent := false, 0
		var last, commit atomic.Uint64
		last.Store(7)
		commit.Store(6)
		q := newQuiet(nil, newNews(), func() (uint64, uint64) { return last.Load(), commit.Load() })
		q.send = func(_ raft.ServerID, _ raft.ServerAddress, _ *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
			sent++
			resp.Success = !refuses
			return fails
		}
		began := time.Now()
		says := func(id raft.ServerID, r *raft.AppendEntriesRequest) time.Duration {
			before := time.Now()
			require.Equal(t, fails, q.AppendEntries(id, "", r, &raft.AppendEntriesResponse{}))
			return time.Since(before)
		}
		idle := func(to uint64) *raft.AppendEntriesRequest {
			commit.Store(to)
			return &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, PrevLogTerm: 2, LeaderCommitIndex: to}
		}
		require.Zero(t, says("a", &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 5, PrevLogTerm: 2, LeaderCommitIndex: 6, Entries: []*raft.Log{{Index: 6, Term: 2}, {Index: 7, Term: 2}}}))
		require.Equal(t, idleAppend, says("a", idle(6)), "it has the entry, and was told of that commit with it")
		require.Zero(t, says("a", idle(7)), "a commit is news")
		require.Zero(t, says("b", idle(7)), "of another follower nothing is known")
		require.Equal(t, idleAppend, says("a", idle(7)))
		<-time.After(idleAppend / 2)
		require.Equal(t, idleAppend/2, says("a", idle(7)), "since it was told last")
		require.Zero(t, says("a", &raft.AppendEntriesRequest{Term: 3}), "heartbeats pass")
		again := idle(7)
		again.Term = 4
		require.Zero(t, says("a", again), "another term")

		// News comes while nothing is to be said, as when an entry is about to be written.
		go func() {
			<-time.After(time.Millisecond)
			q.news.tell()
		}()
		require.Equal(t, time.Millisecond, says("a", again))
		go func() { // and news that was told before anybody listened
			<-time.After(commitTimeout + time.Millisecond)
			last.Store(8)
		}()
		require.Equal(t, 2*commitTimeout, says("a", again))
		last.Store(7)

		fails = errors.New("no way through")
		require.Equal(t, idleAppend, says("a", again))
		require.Zero(t, says("a", again), "what it knows is not known now")
		fails, refuses = nil, true
		require.Zero(t, says("a", again))
		require.Zero(t, says("a", again), "it has another log")
		refuses = false
		require.Zero(t, says("a", again))
		q.news.end()
		q.news.tell()
		require.Zero(t, says("a", again), "nobody waits when the store is closed")
		require.NotZero(t, sent)
		require.Less(t, time.Since(began), 10*idleAppend)
	})
}
