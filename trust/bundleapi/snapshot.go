package bundleapi

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// snapshot is one state with its messages, shared by all watches and never changed.
type snapshot struct {
	generation uint64
	revision   uint64
	messages   []*ententev1.Bundle // by domain
	step       step                // from the generation before
}

// step is the difference between one snapshot and a later one.
type step struct {
	changed []*ententev1.Bundle
	deleted []string
}

func (s step) empty() bool { return len(s.changed) == 0 && len(s.deleted) == 0 }

// next returns the snapshot of a state. Two snapshots have different messages for a domain if and only if it changed:
// of two equal messages the earlier one stays.
func (s *snapshot) next(state State) *snapshot {
	n := &snapshot{revision: state.Revision, messages: slices.SortedFunc(slices.Values(state.Bundles), byDomain)}
	if s != nil {
		n.generation = s.generation + 1
		before := 0
		for i, m := range n.messages {
			for before < len(s.messages) && byDomain(s.messages[before], m) < 0 {
				before++
			}
			if before < len(s.messages) && s.messages[before] != m && proto.Equal(s.messages[before], m) {
				n.messages[i] = s.messages[before]
			}
		}
	}
	n.step = difference(s, n)
	return n
}

// difference returns the step between two snapshots, the earlier of which may be nil.
func difference(from, to *snapshot) step {
	if from == nil {
		return step{changed: to.messages}
	}
	var d step
	i, j := 0, 0
	for i < len(from.messages) || j < len(to.messages) {
		switch {
		case j == len(to.messages) || i < len(from.messages) &&
			from.messages[i].GetTrustDomain() < to.messages[j].GetTrustDomain():
			d.deleted = append(d.deleted, from.messages[i].GetTrustDomain())
			i++
		case i == len(from.messages) || from.messages[i].GetTrustDomain() > to.messages[j].GetTrustDomain():
			d.changed = append(d.changed, to.messages[j])
			j++
		default:
			if from.messages[i] != to.messages[j] {
				d.changed = append(d.changed, to.messages[j])
			}
			i, j = i+1, j+1
		}
	}
	return d
}

// since returns the step to a snapshot for a watcher at another one, or at none if from is nil.
func since(from, to *snapshot) step {
	if from != nil && from.generation+1 == to.generation {
		return to.step
	}
	return difference(from, to)
}

// only narrows a step to the watched names, or not at all if names is nil.
func (s step) only(names map[string]bool) step {
	if names == nil {
		return s
	}
	var n step
	for _, m := range s.changed {
		if names[m.GetTrustDomain()] {
			n.changed = append(n.changed, m)
		}
	}
	for _, name := range s.deleted {
		if names[name] {
			n.deleted = append(n.deleted, name)
		}
	}
	return n
}

// responses divides a step into messages of bounded size. Deletions come first: trust that ended must not wait.
func responses(revision uint64, s step, most int) []*ententev1.WatchBundlesResponse {
	current := &ententev1.WatchBundlesResponse{Revision: revision}
	all := []*ententev1.WatchBundlesResponse{current}
	size := 0
	room := func(n int) {
		if size > 0 && size+n > most {
			current.More = true
			current, size = &ententev1.WatchBundlesResponse{Revision: revision}, 0
			all = append(all, current)
		}
		size += n
	}
	for _, name := range s.deleted {
		room(len(name) + 8)
		current.Deleted = append(current.Deleted, name)
	}
	for _, m := range s.changed {
		room(proto.Size(m) + 8)
		current.Changed = append(current.Changed, m)
	}
	return all
}

// broadcast holds the newest snapshot, and signals newer ones.
type broadcast struct {
	mu      sync.Mutex
	current *snapshot
	changed chan struct{} // closed when current is replaced
	closed  bool
}

func newBroadcast() *broadcast { return &broadcast{changed: make(chan struct{})} }

// publish replaces the newest snapshot, unless nothing changed.
func (f *broadcast) publish(state State) {
	f.mu.Lock()
	before := f.current
	f.mu.Unlock()
	next := before.next(state) // one publisher at a time, by Catalog.Follow's contract
	if before != nil && next.step.empty() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = next
	close(f.changed)
	f.changed = make(chan struct{})
}

// close ends every watch.
func (f *broadcast) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	close(f.changed)
	f.changed = make(chan struct{})
}

// newest returns the newest snapshot, or nil, and a channel that is closed once there is a newer one.
func (f *broadcast) newest() (current *snapshot, changed <-chan struct{}, closed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current, f.changed, f.closed
}
