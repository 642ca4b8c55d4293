package transport

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ententehq/entente/raftstore/internal/quorum"
)

const (
	// CommitTimeout is after which time at most a follower learns of a commit that no entry follows. Every write
	// through a follower waits for that. Raft's default is 50 ms.
	CommitTimeout = 5 * time.Millisecond
	// idleAppend is how often a follower receives what it has acknowledged already.
	idleAppend = 500 * time.Millisecond
)

// quiet is a transport that suppresses AppendEntries that carry nothing new, for at most [idleAppend]. Raft sends each
// follower the commit index every few milliseconds, whether or not it has changed, which is most of the work of an idle
// cluster. Such a message waits here until there is news. Messages are sent unchanged, and none is reported as sent
// that was not. Heartbeats pass.
type quiet struct {
	*raft.NetworkTransport
	news *News
	acks *quorum.Acks
	// position returns this member's last index and commit index.
	position func() (last, commit uint64)
	// stored is called with the last index that a follower has acknowledged.
	stored func(raft.ServerID, uint64)
	send   func(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error

	mu           sync.Mutex
	acknowledged map[raft.ServerID]position
}

// position is the content of a message without entries, and when the follower acknowledged it.
type position struct {
	term, previous, previousTerm, commit uint64
	at                                   time.Time
}

func newQuiet(t *raft.NetworkTransport, c Config) *quiet {
	return &quiet{
		NetworkTransport: t, news: c.News, acks: c.Acks, position: c.Position, stored: c.Acknowledged,
		send: t.AppendEntries, acknowledged: make(map[raft.ServerID]position),
	}
}

// AppendEntries implements raft.Transport.
func (q *quiet) AppendEntries(
	id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse,
) error {
	if args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && args.LeaderCommitIndex == 0 && len(args.Entries) == 0 {
		return q.deliver(id, target, args, resp) // a heartbeat; Raft's own transport recognizes it in the same way
	}
	sent := position{
		term: args.Term, previous: args.PrevLogEntry, previousTerm: args.PrevLogTerm, commit: args.LeaderCommitIndex,
	}
	if len(args.Entries) == 0 {
		q.wait(id, sent)
	}
	err := q.deliver(id, target, args, resp)
	if n := len(args.Entries); n > 0 {
		sent.previous, sent.previousTerm = args.Entries[n-1].Index, args.Entries[n-1].Term
	}
	sent.at = time.Now()
	if err == nil && resp.Success {
		q.stored(id, sent.previous)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil && resp.Success {
		q.acknowledged[id] = sent
	} else {
		delete(q.acknowledged, id)
	}
	return err
}

// deliver sends a message now, and records that it was acknowledged.
func (q *quiet) deliver(
	id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse,
) error {
	acknowledged := q.acks.Sending(id, args.Term)
	err := q.send(id, target, args, resp)
	if err == nil && resp.Success {
		acknowledged()
	}
	return err
}

// wait returns when it is time to send a message without entries. It polls for changes that were announced before it
// began to wait, such as an entry that the disk takes long to write, at growing intervals.
func (q *quiet) wait(id raft.ServerID, next position) {
	q.mu.Lock()
	last := q.acknowledged[id]
	q.mu.Unlock()
	next.at = last.at
	if last != next {
		return
	}
	timer := time.NewTimer(time.Until(last.at.Add(idleAppend)))
	defer timer.Stop()
	poll := time.NewTimer(CommitTimeout)
	defer poll.Stop()
	for interval := CommitTimeout; ; interval *= 2 {
		changed := q.news.next()
		if last, commit := q.position(); last != next.previous || commit != next.commit {
			return
		}
		select {
		case <-changed:
			return
		case <-timer.C:
			return
		case <-poll.C:
			poll.Reset(interval)
		}
	}
}

// News announces changes of the log or of the commit index to the transport.
type News struct {
	mu      sync.Mutex
	changed chan struct{}
	over    bool
}

// NewNews returns a News without any.
func NewNews() *News { return &News{changed: make(chan struct{})} }

// next returns a channel that is closed at the next change.
func (n *News) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Announce wakes those that wait.
func (n *News) Announce() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.over {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// Close ends all waiting, now and later.
func (n *News) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.over {
		n.over = true
		close(n.changed)
	}
}
