package raftstore

import "sync"

// tasks are the goroutines that a store waits for when it is closed.
type tasks struct {
	mu     sync.Mutex
	closed bool
	group  sync.WaitGroup
}

// Go runs a function in a goroutine, unless the store is closed; it reports whether it does.
func (t *tasks) Go(run func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.group.Go(run)
	return true
}

// wait lets no more begin, and waits for those that have.
func (t *tasks) wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.group.Wait()
}
