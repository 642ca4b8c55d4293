package routing

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/ententehq/entente/raftstore"
)

// gatherShared is for how long changes are collected before they are carried to peers.
const gatherShared = 50 * time.Millisecond

// carrying is what streams carry at the moment, and what changed of it.
type carrying struct {
	wake chan struct{}

	mu       sync.Mutex
	freights map[*Freight]bool
	// paces are those at which what comes from each peer is stored, whatever the number of its streams.
	paces map[string]*storePace
	sharedChanges
}

// sharedChanges is what changed of what is shared with other clusters.
type sharedChanges struct {
	// services changed; all says that any may have, and taken that imports did.
	services   map[string]bool
	all, taken bool
	// came are the imports of which something was stored, by key.
	came map[string]bool
}

func newSharedChanges() sharedChanges {
	return sharedChanges{services: make(map[string]bool), came: make(map[string]bool)}
}

func newCarrying() *carrying {
	return &carrying{wake: make(chan struct{}, 1), freights: make(map[*Freight]bool), paces: make(map[string]*storePace), sharedChanges: newSharedChanges()}
}

func (c *carrying) add(f *Freight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freights[f] = true
}

func (c *carrying) remove(f *Freight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.freights, f)
}

func (c *carrying) list() []*Freight {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*Freight, 0, len(c.freights))
	for f := range c.freights {
		out = append(out, f)
	}
	return out
}

// maxPaces bounds the peers whose pace is remembered; those that are imported from are fewer.
const maxPaces = 4 * maxImports

// storePace bounds how much of one peer is written to Raft through this member: batches, and instances.
type storePace struct{ batches, instances *rate.Limiter }

func (c *carrying) paceOf(home string) *storePace {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, known := c.paces[home]
	if !known {
		if len(c.paces) >= maxPaces {
			clear(c.paces)
		}
		p = &storePace{rate.NewLimiter(storeRate, storeBurst), rate.NewLimiter(storeInstanceRate, storeInstanceBurst)}
		c.paces[home] = p
	}
	return p
}

func (p *storePace) wait(ctx context.Context, batch []arrival) error {
	if err := p.batches.Wait(ctx); err != nil {
		return err
	}
	n := 0
	for _, a := range batch {
		n += len(a.instances)
	}
	return p.instances.WaitN(ctx, n)
}

// note takes down a changed row.
func (c *carrying) note(m *Manager, change raftstore.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch change.Table {
	case Imports.Name():
		c.taken = true
	case ImportedSets.Name():
		c.came[change.Key] = true
	case Exports.Name():
		c.all = true
	default:
		services, known := m.Touched(m.store.View(), change)
		for _, service := range services {
			c.services[service] = true
		}
		c.all = c.all || !known
	}
}

func (c *carrying) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// changed returns what was noted, and begins anew.
func (c *carrying) changed() sharedChanges {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.sharedChanges
	c.sharedChanges = newSharedChanges()
	return out
}

// followShared tells the streams of what changes, until ctx ends.
func (m *Manager) followShared(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.collectShared(ctx) })
	g.Go(func() error { return m.tellStreams(ctx) })
	return g.Wait()
}

func (m *Manager) collectShared(ctx context.Context) error {
	over := []raftstore.Prefix{Instances.Prefix(""), Sets.Prefix(""), Leases.Prefix(""), Exports.Prefix(""), Imports.Prefix(""), ImportedSets.Prefix("")}
	for {
		watch := m.store.Watch(over, m.store.View().Revision())
		m.carrying.mu.Lock()
		m.carrying.all, m.carrying.taken = true, true // what changed before the watch began, by a restore perhaps
		m.carrying.mu.Unlock()
		m.carrying.signal()
		err := m.collectSharedFrom(ctx, watch)
		watch.Close()
		if !errors.Is(err, raftstore.ErrWatchRestart) {
			return err
		}
	}
}

func (m *Manager) collectSharedFrom(ctx context.Context, watch *raftstore.Watch) error {
	for {
		batch, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		for _, change := range batch.Changes {
			m.carrying.note(m, change)
		}
		m.carrying.signal()
	}
}

func (m *Manager) tellStreams(ctx context.Context) error {
	pause := time.NewTimer(gatherShared)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.carrying.wake:
		}
		pause.Reset(gatherShared)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
		changes := m.carrying.changed()
		for _, f := range m.carrying.list() {
			if f.touch(changes) {
				f.stream.Wake()
			}
		}
	}
}

// touch takes down what changed, and says whether the stream carries any of it.
func (f *Freight) touch(c sharedChanges) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	touched := c.taken
	f.stale = f.stale || c.taken
	for _, i := range f.taking {
		if c.taken || c.came[i.key()] {
			f.came[i.key()] = true // with taken, something may have been restored
			touched = true
		}
	}
	if c.all {
		for key := range f.wanted {
			f.due[key] = true
			touched = true
		}
		return touched
	}
	for name := range c.services {
		for key := range f.feeds[name] {
			f.due[key] = true
			touched = true
		}
	}
	return touched
}
