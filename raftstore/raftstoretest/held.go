package raftstoretest

import (
	"context"
	"sync"
)

// Held holds back what arrives at one member for Raft, as if the member were paused.
type Held struct {
	network *network
	member  string
	ended   chan struct{}
	end     sync.Once

	mu      sync.Mutex
	answers map[string]int // how many answers of each member are held
	changed chan struct{}  // closed and replaced when one more is held
	release chan struct{}  // lets the answers pass that are held; replaced for later ones
}

// Hold holds back everything that arrives at a member from now on, at most until the test ends.
func (c *Cluster) Hold(i int) *Held {
	h := &Held{
		network: c.network, member: memberID(i), ended: make(chan struct{}), answers: map[string]int{},
		changed: make(chan struct{}), release: make(chan struct{}),
	}
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	c.network.held[h.member] = h
	c.t.Cleanup(h.End)
	return h
}

// AwaitAnswers returns once answers of all the given members are held. release lets those pass that are held by then;
// requests, and later answers, are still held back.
func (h *Held) AwaitAnswers(ctx context.Context, members ...int) (release func(), _ error) {
	for {
		h.mu.Lock()
		all := true
		for _, i := range members {
			all = all && h.answers[memberID(i)] > 0
		}
		changed, held := h.changed, h.release
		if all {
			h.release, h.answers = make(chan struct{}), map[string]int{}
		}
		h.mu.Unlock()
		if all {
			return func() { close(held) }, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// End lets everything pass, now and later.
func (h *Held) End() {
	h.end.Do(func() {
		h.network.mu.Lock()
		defer h.network.mu.Unlock()
		delete(h.network.held, h.member)
		close(h.ended)
	})
}

// answer returns once an answer may pass.
func (h *Held) answer(from string) {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.answers[from]++
	close(h.changed)
	h.changed = make(chan struct{})
	release := h.release
	h.mu.Unlock()
	select {
	case <-release:
	case <-h.ended:
	}
}

// request returns once a request may pass.
func (h *Held) request() {
	if h != nil {
		<-h.ended
	}
}

// holding returns what holds back messages to a member, or nil.
func (n *network) holding(member string) *Held {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held[member]
}
