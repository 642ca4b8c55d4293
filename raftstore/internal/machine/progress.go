package machine

import (
	"context"
	"sync"
)

// Progress is the revision that is applied, for goroutines that wait for one. The zero value is revision 0.
type Progress struct {
	mu      sync.Mutex
	at      uint64
	waiting map[*waiter]struct{}
}

type waiter struct {
	revision uint64
	done     chan struct{}
}

func (p *Progress) reach(revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = max(p.at, revision)
	for w := range p.waiting {
		if w.revision <= p.at {
			close(w.done)
			delete(p.waiting, w)
		}
	}
}

// Wait returns once the revision is applied, or with the error of ctx.
func (p *Progress) Wait(ctx context.Context, revision uint64) error {
	w, wait := p.register(revision)
	if !wait {
		return nil
	}
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.waiting, w)
		p.mu.Unlock()
		return ctx.Err()
	}
}

func (p *Progress) register(revision uint64) (*waiter, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if revision <= p.at {
		return nil, false
	}
	w := &waiter{revision: revision, done: make(chan struct{})}
	if p.waiting == nil {
		p.waiting = map[*waiter]struct{}{}
	}
	p.waiting[w] = struct{}{}
	return w, true
}
