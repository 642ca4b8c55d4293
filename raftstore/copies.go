package raftstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/ententehq/entente/raftstore/internal/disk"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/transport"
)

// copies detects members whose data folder was replaced by an older copy. Such a member has forgotten votes and
// entries that count, and cannot detect that itself. So members present in each handshake how often they were started
// and how long their log is, and each remembers the latest of the others: in memory, and the number of the start in the
// replicated state, with the outcomes of that member's commands. Members without a vote are not judged: they are new,
// or were rebuilt.
type copies struct {
	node    *node
	machine *machine.Machine
	own     transport.Hello // without its positions
	log     hclog.Logger
	fail    func(error)

	mu    sync.Mutex
	known map[string]seen
}

// seen is what is known of another member.
type seen struct {
	start, run uint64
	// entry is a committed entry that the member had.
	entry uint64
}

func newCopies(s *Store) *copies {
	return &copies{
		node: s.node, machine: s.machine, log: s.log, fail: s.fail, known: map[string]seen{},
		own: transport.Hello{Server: string(s.node.id), Run: rand.Uint64()},
	}
}

// handshake returns the part of this member in the handshakes.
func (c *copies) handshake() transport.Handshake {
	return transport.Handshake{
		Await: c.await, Verify: verifyPeer, Own: c.present, Judge: c.judge, Refused: c.refused,
	}
}

// await returns once Raft runs and the state is loaded: before that, this member could not judge others.
func (c *copies) await(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, ready := range []func() <-chan struct{}{
		func() <-chan struct{} { return c.node.started }, c.machine.Resumed, // in this order
	} {
		select {
		case <-ready():
		case <-c.node.ended:
			return ErrClosed
		case <-timer.C:
			return errors.New("this member is still loading its state")
		}
	}
	return nil
}

// verifyPeer compares the server that the other end of a connection presents itself as with the member whose identity
// key it has proved, if the stream layer verifies identities.
func verifyPeer(conn net.Conn, server string) error {
	if w, ok := conn.(interface{ Unwrap() net.Conn }); ok {
		conn = w.Unwrap()
	}
	proved, ok := conn.(interface {
		RaftPeer() (memberID string, identity [32]byte)
	})
	if !ok {
		return nil
	}
	if member := serverID(proved.RaftPeer()); string(member) != server {
		return fmt.Errorf("%s presents itself as %s", member, server)
	}
	return nil
}

func (c *copies) present() transport.Hello {
	h := c.own
	h.Last, _ = c.node.position()
	h.Applied = c.machine.State().Revision
	return h
}

// judge remembers what another member presents, or returns why its data folder is an older copy.
func (c *copies) judge(h transport.Hello) error {
	if !c.node.votes(h.Server) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.known[h.Server] = seen{start: h.Start, run: h.Run, entry: h.Applied}
		return nil
	}
	replicated := c.machine.State().Incarnation(h.Server)
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.known[h.Server]
	if err := outdated(known, replicated, h); err != nil {
		c.log.Error("refused a member whose data folder is an older copy", "member", h.Server, "error", err)
		return err
	}
	c.known[h.Server] = seen{start: h.Start, run: h.Run, entry: max(known.entry, h.Applied)}
	return nil
}

// outdated decides whether a member presents less than is known of it. replicated is the number of a start of it. A run
// that was judged before is not judged again: on its other connections it may present a log from before its latest
// entries.
func outdated(known seen, replicated uint64, h transport.Hello) error {
	switch start := max(known.start, replicated); {
	case h.Start == known.start && h.Run == known.run:
		return nil
	case h.Start < start:
		return fmt.Errorf("start %d of it is known, and this is its start %d", start, h.Start)
	case h.Start == known.start:
		return fmt.Errorf("start %d of it is known, and this is another one of the same number", h.Start)
	case h.Last < known.entry:
		return fmt.Errorf("entry %d of its log is known, and its log ends at %d", known.entry, h.Last)
	}
	return nil
}

// acknowledged remembers that another member has stored an entry, if that is committed.
func (c *copies) acknowledged(id raft.ServerID, index uint64) {
	_, commit := c.node.position()
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.known[string(id)]; ok && min(index, commit) > known.entry {
		known.entry = min(index, commit)
		c.known[string(id)] = known
	}
}

// refused stops this member, which must not vote. One that has no vote by its own configuration is new or was rebuilt,
// and the other has not learned of that yet.
func (c *copies) refused(by, reason string) {
	if c.node.votes(string(c.node.id)) {
		c.fail(fmt.Errorf("member stopped: its data folder is %w, or an older copy: member %s refuses it: %s",
			disk.ErrDamaged, memberOf(by), reason))
	}
}

// memberOf returns the name of a member by its server ID.
func memberOf(server string) string {
	if name, _, err := parseServerID(raft.ServerID(server)); err == nil {
		return name
	}
	return server
}
