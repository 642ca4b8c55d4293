package raftstore

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// commitTimeout is after which time at most a follower learns of a commit that no entry follows; every write through a follower waits for that.
	// Raft has 50 ms by itself.
	commitTimeout = 5 * time.Millisecond
	// idleAppend is how often it is told what it knows already.
	idleAppend = 500 * time.Millisecond
)

// quiet is a transport that saves a leader saying the same to a follower again and again. Raft tells each follower every few milliseconds how
// far the commits are, whether or not they are any further: that makes up most of what a cluster at rest does. What brings no
// entry and says what the follower has acknowledged already waits here until there is news, and no longer than [idleAppend]. All that is
// sent is sent as Raft made it, and what was not sent is not said to have been. Heartbeats pass.
type quiet struct {
	*raft.NetworkTransport
	news *news
	// at is how far this member's log and commits are.
	at   func() (last, commit uint64)
	send func(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error

	mu    sync.Mutex
	known map[raft.ServerID]knownCommit
}

// knownCommit is what a follower acknowledged last, and when.
type knownCommit struct {
	term, previous, previousTerm, commit uint64
	at                                   time.Time
}

func newQuiet(t *raft.NetworkTransport, n *news, at func() (last, commit uint64)) *quiet {
	return &quiet{NetworkTransport: t, news: n, at: at, send: t.AppendEntries, known: make(map[raft.ServerID]knownCommit)}
}

// AppendEntries is part of [raft.Transport].
func (q *quiet) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && args.LeaderCommitIndex == 0 && len(args.Entries) == 0 {
		return q.send(id, target, args, resp) // a heartbeat, as Raft's own transport tells it
	}
	says := knownCommit{term: args.Term, previous: args.PrevLogEntry, previousTerm: args.PrevLogTerm, commit: args.LeaderCommitIndex}
	if len(args.Entries) == 0 {
		q.wait(id, says)
	}
	err := q.send(id, target, args, resp)
	if n := len(args.Entries); n > 0 {
		says.previous, says.previousTerm = args.Entries[n-1].Index, args.Entries[n-1].Term
	}
	says.at = time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil && resp.Success {
		q.known[id] = says
	} else {
		delete(q.known, id)
	}
	return err
}

// wait returns when it is time to say something to a follower. News of before it listened, such as of an entry that the disk takes long over, it
// finds out by looking, less and less often.
func (q *quiet) wait(id raft.ServerID, says knownCommit) {
	q.mu.Lock()
	known := q.known[id]
	q.mu.Unlock()
	says.at = known.at
	if known != says {
		return
	}
	timer := time.NewTimer(time.Until(known.at.Add(idleAppend)))
	defer timer.Stop()
	look := time.NewTimer(commitTimeout)
	defer look.Stop()
	for pause := commitTimeout; ; pause *= 2 {
		news := q.news.next()
		if last, commit := q.at(); last != says.previous || commit != says.commit {
			return
		}
		select {
		case <-news:
			return
		case <-timer.C:
			return
		case <-look.C:
			look.Reset(pause)
		}
	}
}

// news is told of what changes in the log or in what is committed.
type news struct {
	mu      sync.Mutex
	changed chan struct{}
	over    bool
}

func newNews() *news { return &news{changed: make(chan struct{})} }

// next is closed at the next change.
func (n *news) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.over {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// end has nobody wait for news any more.
func (n *news) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.over {
		n.over = true
		close(n.changed)
	}
}
