package registration

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
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
	most   int           // of the entries

	mu      sync.RWMutex
	entries map[string]indexed
	// byAgent and selecting have the IDs of the entries for one agent, and of those that select agents.
	byAgent   map[string]map[string]struct{}
	selecting map[string]struct{}
	// byAuthor has the IDs of the entries that a caller wrote last.
	byAuthor map[string]map[string]struct{}
	agents   map[string][]string // the selectors of an agent, by its name
	streams  map[string]map[*feed.Set[string]]struct{}
}

// indexed is an entry in the index. Message is shared and never modified.
type indexed struct {
	entry   entry.Entry
	author  string
	message *ententev1.Entry
}

func newIndex(logger hclog.Logger, most int) *Index {
	return &Index{
		logger: logger, loaded: make(chan struct{}), most: most, entries: map[string]indexed{},
		byAgent: map[string]map[string]struct{}{}, selecting: map[string]struct{}{}, agents: map[string][]string{},
		byAuthor: map[string]map[string]struct{}{},
		streams:  map[string]map[*feed.Set[string]]struct{}{},
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
	clear(x.byAuthor)
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
				x.remove(was)
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
	x.entries[key] = indexed{entry: e, author: author(row), message: entry.Message(row, uint64(at))}
	add(x.byAuthor, author(row), key)
	if e.Agent == "" {
		x.selecting[key] = struct{}{}
		return
	}
	add(x.byAgent, e.Agent, key)
}

func add(sets map[string]map[string]struct{}, of, key string) {
	if sets[of] == nil {
		sets[of] = map[string]struct{}{}
	}
	sets[of][key] = struct{}{}
}

func drop(sets map[string]map[string]struct{}, of, key string) {
	delete(sets[of], key)
	if len(sets[of]) == 0 {
		delete(sets, of)
	}
}

// remove deletes an entry. x.mu is held.
func (x *Index) remove(i indexed) {
	delete(x.entries, i.entry.ID)
	delete(x.selecting, i.entry.ID)
	drop(x.byAgent, i.entry.Agent, i.entry.ID)
	drop(x.byAuthor, i.author, i.entry.ID)
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

// serversChanged has every stream compare the members with those that it has sent.
func (x *Index) serversChanged() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, streams := range x.streams {
		for s := range streams {
			s.Add(noEntry)
		}
	}
}

// noEntry is the ID of no entry.
const noEntry = ""

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

// by returns the IDs of the entries that a caller wrote last, sorted.
func (x *Index) by(author string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Sorted(maps.Keys(x.byAuthor[author]))
}

// admits returns an error if an author can write no further entry: the table is full, or the author has as many as it
// leaves free for all others. An admin socket fills the table.
func (x *Index) admits(author string) error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	all, own := len(x.entries), len(x.byAuthor[author])
	switch {
	case all >= x.most:
		return status.Errorf(codes.ResourceExhausted, "the cluster has %d entries, the most that it can have: delete "+
			"those of workloads that are gone", all)
	case own >= x.most-all && !access.ByAdminSocket(author):
		return status.Errorf(codes.ResourceExhausted, "%s has written %d entries, and %d are left for everybody: one "+
			"caller has no more than it leaves for the others; delete some, or create more on the admin socket of a "+
			"member", author, own, x.most-all)
	}
	return nil
}

// nodes returns the number of agents.
func (x *Index) nodes() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.agents)
}
