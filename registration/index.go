package registration

import (
	"context"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/registration/entry"
)

// Index has all entries in memory, by agent, and wakes the streams of the agents that a change concerns. It is safe for
// concurrent use.
type Index struct {
	logger hclog.Logger
	loaded chan struct{} // closed after the first load

	mu      sync.RWMutex
	entries map[string]indexed
	// byAgent and selecting have the IDs of the entries for one agent, and of those that select agents.
	byAgent   map[string]map[string]struct{}
	selecting map[string]struct{}
	agents    map[string][]string // the selectors of an agent, by its name
	streams   map[string]map[*feed.Set[string]]struct{}
}

// indexed is an entry in the index. Message is shared and never modified.
type indexed struct {
	entry   entry.Entry
	message *ententev1.Entry
}

func newIndex(logger hclog.Logger) *Index {
	return &Index{
		logger: logger, loaded: make(chan struct{}), entries: map[string]indexed{},
		byAgent: map[string]map[string]struct{}{}, selecting: map[string]struct{}{}, agents: map[string][]string{},
		streams: map[string]map[*feed.Set[string]]struct{}{},
	}
}

// await waits until the index has been loaded.
func (x *Index) await(ctx context.Context) error {
	select {
	case <-x.loaded:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// load replaces the content, and wakes every stream.
func (x *Index) load(view *raftstore.View) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.entries)
	clear(x.byAgent)
	clear(x.selecting)
	clear(x.agents)
	for row, err := range entries.All(view, "") {
		if err != nil {
			return err
		}
		x.put(row.Key, row.Value, row.Revision)
	}
	for row, err := range agents.All(view, "") {
		if err != nil {
			return err
		}
		x.agents[row.Key] = row.Value.GetSelectors()
	}
	for _, streams := range x.streams {
		for s := range streams {
			s.AddAll()
		}
	}
	select {
	case <-x.loaded:
	default:
		close(x.loaded)
	}
	return nil
}

// apply takes over changes, and wakes the streams that they concern.
func (x *Index) apply(_ *raftstore.View, batch raftstore.Batch) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, change := range batch.Changes {
		switch change.Table {
		case entries.Name():
			if was, ok := x.entries[change.Key]; ok {
				x.wake(was.entry)
				x.remove(was.entry)
			}
			if change.Value == nil {
				continue
			}
			row, err := entries.Decode(change.Value)
			if err != nil {
				return err
			}
			x.put(change.Key, row, batch.Revision)
			if now, ok := x.entries[change.Key]; ok {
				x.wake(now.entry)
			}
		case agents.Name():
			if change.Value == nil {
				delete(x.agents, change.Key) // its streams end
				continue
			}
			row, err := agents.Decode(change.Value)
			if err != nil {
				return err
			}
			same := slices.Equal(x.agents[change.Key], row.GetSelectors())
			x.agents[change.Key] = row.GetSelectors()
			if !same {
				for s := range x.streams[change.Key] {
					s.AddAll()
				}
			}
		}
	}
	return nil
}

// put adds an entry. One that this version cannot read, because a later one wrote it, is left out. x.mu is held.
func (x *Index) put(key string, row *statev1.RegistrationEntry, at raftstore.Revision) {
	e, err := entry.Decode(row)
	if err != nil || e.ID != key {
		x.logger.Error("an entry cannot be read, and is issued to nobody", "entry", key, "error", err)
		return
	}
	x.entries[key] = indexed{entry: e, message: entry.Message(row, uint64(at))}
	if e.Agent == "" {
		x.selecting[key] = struct{}{}
		return
	}
	if x.byAgent[e.Agent] == nil {
		x.byAgent[e.Agent] = map[string]struct{}{}
	}
	x.byAgent[e.Agent][key] = struct{}{}
}

// remove deletes an entry. x.mu is held.
func (x *Index) remove(e entry.Entry) {
	delete(x.entries, e.ID)
	delete(x.selecting, e.ID)
	delete(x.byAgent[e.Agent], e.ID)
	if len(x.byAgent[e.Agent]) == 0 {
		delete(x.byAgent, e.Agent)
	}
}

// wake adds an entry to the sets of the streams that it concerns. x.mu is held.
func (x *Index) wake(e entry.Entry) {
	if e.Agent != "" {
		for s := range x.streams[e.Agent] {
			s.Add(e.ID)
		}
		return
	}
	for agent, streams := range x.streams {
		if e.For(agent, x.agents[agent]) {
			for s := range streams {
				s.Add(e.ID)
			}
		}
	}
}

// subscribe returns a set that receives the IDs of entries that change for an agent, and all at first. The caller ends
// it.
func (x *Index) subscribe(agent string) (set *feed.Set[string], end func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	set = feed.NewSet[string]()
	set.AddAll()
	if x.streams[agent] == nil {
		x.streams[agent] = map[*feed.Set[string]]struct{}{}
	}
	x.streams[agent][set] = struct{}{}
	return set, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.streams[agent], set)
		if len(x.streams[agent]) == 0 {
			delete(x.streams, agent)
		}
	}
}

// get returns an entry if it is for an agent of the index.
func (x *Index) get(id, agent string) (*ententev1.Entry, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.entries[id]
	if !ok || !e.entry.For(agent, x.agents[agent]) {
		return nil, false
	}
	return e.message, true
}

// all returns the entries for an agent of the index.
func (x *Index) all(agent string) []*ententev1.Entry {
	x.mu.RLock()
	selectors := x.agents[agent]
	x.mu.RUnlock()
	return x.Of(agent, selectors)
}

// Of returns the entries for an agent with a name and selectors, in no order. They are shared.
func (x *Index) Of(agent string, selectors []string) (of []*ententev1.Entry) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for id := range x.byAgent[agent] {
		of = append(of, x.entries[id].message)
	}
	for id := range x.selecting {
		if e := x.entries[id]; e.entry.For(agent, selectors) {
			of = append(of, e.message)
		}
	}
	return of
}

// size returns the number of entries and of agents.
func (x *Index) size() (entries, agents int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.entries), len(x.agents)
}
