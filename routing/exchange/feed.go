package exchange

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/routing/registry"
)

const (
	// gatherChanges is how long changes are gathered before streams are woken.
	gatherChanges = 50 * time.Millisecond
	// storeRate is how many batches of one peer are stored a second, each a write to Raft, and storeInstanceRate how
	// many instances. Sets that are received faster are replaced by their newer versions before they are stored.
	storeRate, storeBurst                 = 10, 20
	storeInstanceRate, storeInstanceBurst = 4000, 2 * maxImportedFrom
	// maxLimits bounds the peers whose limit is kept; fewer are imported from.
	maxLimits = 4 * maxImports
)

// syncs holds the syncs of the open streams, and notifies them of changes.
type syncs struct {
	parts syncParts

	mu   sync.Mutex
	all  map[*Sync]bool
	rate map[string]*storeLimit // by home trust domain, for all streams of a peer
}

func newSyncs() *syncs {
	return &syncs{all: make(map[*Sync]bool), rate: make(map[string]*storeLimit)}
}

func (a *syncs) open(stream Stream) *Sync {
	s := newSync(a.parts, a, stream)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[s] = true
	return s
}

// remove forgets a sync, and with the last one of a peer the outcomes that this member reports of it.
func (a *syncs) remove(s *Sync) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, s)
	for other := range a.all {
		if other.stream.Home == s.stream.Home {
			return
		}
	}
	a.parts.outcomes.deletePeer(s.stream.Home)
}

func (a *syncs) list() []*Sync {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*Sync, 0, len(a.all))
	for s := range a.all {
		list = append(list, s)
	}
	return list
}

// storeLimit bounds how much of one peer is written to Raft by this member.
type storeLimit struct{ batches, instances *rate.Limiter }

func (a *syncs) limitOf(home string) *storeLimit {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, known := a.rate[home]
	if !known {
		if len(a.rate) >= maxLimits {
			clear(a.rate)
		}
		l = &storeLimit{rate.NewLimiter(storeRate, storeBurst), rate.NewLimiter(storeInstanceRate, storeInstanceBurst)}
		a.rate[home] = l
	}
	return l
}

func (l *storeLimit) wait(ctx context.Context, batch []receivedSet) error {
	if err := l.batches.Wait(ctx); err != nil {
		return err
	}
	n := 0
	for _, set := range batch {
		n += len(set.instances)
	}
	return l.instances.WaitN(ctx, n)
}

// sharedKey is what a change affects of what is shared with other clusters.
type sharedKey struct {
	kind sharedKind
	name string
}

type sharedKind uint8

const (
	// sharedService is a service here, by name. sharedExports are all exported sets, sharedImports the imports, and
	// sharedReceived is what was stored of an import, by its key.
	sharedService sharedKind = iota
	sharedExports
	sharedImports
	sharedReceived
)

// sharedChanges is a gathered set of changes.
type sharedChanges struct {
	services []string
	// all means that every exported set may have changed.
	all bool
	// imports means that imports, and what is stored of them, may have changed. received are the keys of imports of
	// which something was stored.
	imports  bool
	received map[string]bool
}

// follow wakes the streams that changes affect, until ctx ends.
func (a *syncs) follow(ctx context.Context) error {
	keys := feed.Keys[sharedKey]{
		Store:    a.parts.store,
		Over:     append(registry.Prefixes(), exportTable.Prefix("")),
		Affected: affectedBy,
		Pace:     feed.Pace{Gather: gatherChanges},
	}
	return keys.Run(ctx, feed.NewSet[sharedKey](), func(_ *raftstore.View, affected feed.Affected[sharedKey]) error {
		changes := changesOf(affected)
		for _, s := range a.list() {
			if s.affect(changes) {
				s.stream.Wake()
			}
		}
		return nil
	})
}

func affectedBy(view *raftstore.View, change raftstore.Change, set *feed.Set[sharedKey]) error {
	switch change.Table {
	case importTable.Name():
		set.Add(sharedKey{kind: sharedImports})
	case registry.ImportedSets.Name():
		set.Add(sharedKey{sharedReceived, change.Key})
	case exportTable.Name():
		set.Add(sharedKey{kind: sharedExports})
	default:
		services, known := registry.Affected(view, change)
		for _, service := range services {
			set.Add(sharedKey{sharedService, service})
		}
		if !known {
			set.Add(sharedKey{kind: sharedExports})
		}
	}
	return nil
}

func changesOf(affected feed.Affected[sharedKey]) sharedChanges {
	c := sharedChanges{all: affected.All, imports: affected.All, received: make(map[string]bool)}
	for key := range affected.Keys {
		switch key.kind {
		case sharedService:
			c.services = append(c.services, key.name)
		case sharedExports:
			c.all = true
		case sharedImports:
			c.imports = true
		case sharedReceived:
			c.received[key.name] = true
		}
	}
	return c
}
