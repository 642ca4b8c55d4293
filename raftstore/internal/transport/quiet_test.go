package transport

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/clocktest"
	"github.com/ententehq/entente/raftstore/internal/quorum"
)

// A leader sends at once what a follower has not acknowledged, and repeats the rest at the idle pace.
func TestQuietTransport(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		var fails error
		refuses, sent := false, 0
		var last, commit atomic.Uint64
		last.Store(7)
		commit.Store(6)
		q := newQuiet(nil, Config{
			News: NewNews(), Acks: quorum.NewAcks(), Acknowledged: func(raft.ServerID, uint64) {},
			Position: func() (uint64, uint64) { return last.Load(), commit.Load() },
		})
		q.send = func(
			_ raft.ServerID, _ raft.ServerAddress, _ *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse,
		) error {
			sent++
			resp.Success = !refuses
			return fails
		}
		began := time.Now()
		append := func(id raft.ServerID, r *raft.AppendEntriesRequest) time.Duration {
			before := time.Now()
			require.Equal(t, fails, q.AppendEntries(id, "", r, &raft.AppendEntriesResponse{}))
			return time.Since(before)
		}
		idle := func(to uint64) *raft.AppendEntriesRequest {
			commit.Store(to)
			return &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, PrevLogTerm: 2, LeaderCommitIndex: to}
		}
		require.Zero(
			t,
			append(
				"a",
				&raft.AppendEntriesRequest{
					Term:              3,
					PrevLogEntry:      5,
					PrevLogTerm:       2,
					LeaderCommitIndex: 6,
					Entries:           []*raft.Log{{Index: 6, Term: 2}, {Index: 7, Term: 2}},
				},
			),
		)
		require.Equal(t, idleAppend, append("a", idle(6)), "it has the entry, which carried that commit")
		require.Zero(t, append("a", idle(7)), "a commit is news")
		require.Zero(t, append("b", idle(7)), "another follower has acknowledged nothing")
		require.Equal(t, idleAppend, append("a", idle(7)))
		<-time.After(idleAppend / 2)
		require.Equal(t, idleAppend/2, append("a", idle(7)), "since it acknowledged last")
		require.Zero(t, append("a", &raft.AppendEntriesRequest{Term: 3}), "heartbeats pass")
		again := idle(7)
		again.Term = 4
		require.Zero(t, append("a", again), "another term")

		// A change is announced while a message waits, as when an entry is about to be written.
		go func() {
			<-time.After(time.Millisecond)
			q.news.Announce()
		}()
		require.Equal(t, time.Millisecond, append("a", again))
		go func() { // a change that was announced before the wait began
			<-time.After(CommitTimeout + time.Millisecond)
			last.Store(8)
		}()
		require.Equal(t, 2*CommitTimeout, append("a", again))
		last.Store(7)

		fails = errors.New("connection refused")
		require.Equal(t, idleAppend, append("a", again))
		require.Zero(t, append("a", again), "its position is unknown now")
		fails, refuses = nil, true
		require.Zero(t, append("a", again))
		require.Zero(t, append("a", again), "it has another log")
		refuses = false
		require.Zero(t, append("a", again))
		q.news.Close()
		q.news.Announce()
		require.Zero(t, append("a", again), "nothing waits when the store is closed")
		require.NotZero(t, sent)
		require.Less(t, time.Since(began), 10*idleAppend)
	})
}
