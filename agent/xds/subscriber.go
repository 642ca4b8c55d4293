package xds

import (
	"sync"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// typed is a subscription to a resource, or with the name "*" to all of a type.
type typed struct {
	of   xdsupdate.Type
	name string
}

const everything = "*"

// subscriber is the source of one program's stream.
type subscriber struct {
	group         *group
	subscriptions map[typed]bool
	closed        sync.Once
}

var _ discovery.Source = (*subscriber)(nil)

// Changed implements [discovery.Source].
func (s *subscriber) Changed() ([2]<-chan struct{}, error) {
	changed, err := s.group.watch()
	return [2]<-chan struct{}{changed}, err
}

// Subscribe implements [discovery.Source].
func (s *subscriber) Subscribe(t xdsupdate.Type, to discovery.Subscription) error {
	next := map[typed]bool{}
	for _, name := range to.Names {
		next[typed{t, name}] = true
	}
	if to.Wildcard {
		next[typed{t, everything}] = true
	}
	var added, dropped []typed
	for key := range next {
		if !s.subscriptions[key] {
			added = append(added, key)
		}
	}
	for key := range s.subscriptions {
		if key.of == t && !next[key] {
			dropped = append(dropped, key)
		}
	}
	if err := s.group.subscribe(added, dropped); err != nil {
		return err
	}
	for _, key := range added {
		s.subscriptions[key] = true
	}
	for _, key := range dropped {
		delete(s.subscriptions, key)
	}
	return nil
}

// Wanted implements [discovery.Source].
func (s *subscriber) Wanted(
	t xdsupdate.Type, of discovery.Subscription,
) (map[string]*xdsupdate.Resource, bool, error) {
	return s.group.wanted(t, of)
}

// Close implements [discovery.Source].
func (s *subscriber) Close() {
	s.closed.Do(func() {
		var dropped []typed
		for key := range s.subscriptions {
			dropped = append(dropped, key)
		}
		_ = s.group.subscribe(nil, dropped) // fewer subscriptions are never refused
		s.group.use(-1)
	})
}
