package commit

import (
	"context"
	"sync"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// Numbers numbers the commands of one member, and tracks which of them are still open.
type Numbers struct {
	member      string
	incarnation uint64
	slots       chan struct{}

	mu   sync.Mutex
	last uint64
	// opened holds the counters in use. Transactions, which are numbered too, never are in the log and do not count.
	opened map[uint64]bool
	lowest uint64
}

// NewNumbers returns the numbers of one run of a member.
func NewNumbers(member string, incarnation uint64) *Numbers {
	return &Numbers{
		member: member, incarnation: incarnation, slots: make(chan struct{}, machine.MaxOpen),
		opened: map[uint64]bool{}, lowest: 1,
	}
}

// Next draws a number.
func (n *Numbers) Next() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	return n.last
}

// Open draws the ID of a new command, and returns the counter below which all commands are settled.
func (n *Numbers) Open() (id *statev1.CommandID, settled uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	n.opened[n.last] = true
	for n.lowest < n.last && !n.opened[n.lowest] {
		n.lowest++
	}
	return &statev1.CommandID{Member: n.member, Incarnation: n.incarnation, Counter: n.last}, n.lowest
}

// Settle ends a command: its outcome is known, or no caller waits for it any more. If it was not applied by then, it
// may never be.
func (n *Numbers) Settle(counter uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.opened, counter)
}

// Acquire waits for room among the commands under way.
func (n *Numbers) Acquire(ctx context.Context) (release func(), _ error) {
	select {
	case n.slots <- struct{}{}:
		return func() { <-n.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
