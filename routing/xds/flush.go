package xds

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/raftstore"
)

const (
	// gather is for how long changes are collected before they are carried to the streams.
	gather = 50 * time.Millisecond
	// linger is for how long the cluster of a service that is gone is kept, so that the routes to it go first.
	linger = 2 * time.Second
	// recheck is how often everything is looked at although nothing was written: a bundle expires without a write.
	recheck = 5 * time.Second
)

// changes collects what has to be looked at again.
type changes struct {
	mu       sync.Mutex
	all      bool
	services map[string]bool
	wake     chan struct{}
}

func newChanges() *changes {
	return &changes{services: map[string]bool{}, wake: make(chan struct{}, 1)}
}

// note takes down services that may have changed; not known: any may have.
func (c *changes) note(services []string, known bool) {
	if known && len(services) == 0 {
		return
	}
	c.mu.Lock()
	for _, service := range services {
		c.services[service] = true
	}
	c.all = c.all || !known
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *changes) take() (services map[string]bool, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	services, all = c.services, c.all
	c.services, c.all = map[string]bool{}, false
	return services, all
}

// Run carries changes to the streams until ctx ends, whose error it returns.
func (c *Cache) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.collect(ctx) })
	group.Go(func() error { return c.carry(ctx) })
	return group.Wait()
}

// collect notes which services changes touch.
func (c *Cache) collect(ctx context.Context) error {
	for {
		watch := c.config.Store.Watch(c.config.Source.Prefixes(), c.config.Store.View().Revision())
		c.changes.note(nil, false) // what changed before the watch began
		err := c.collectFrom(ctx, watch)
		watch.Close()
		if !errors.Is(err, raftstore.ErrWatchRestart) {
			return err
		}
	}
}

func (c *Cache) collectFrom(ctx context.Context, watch *raftstore.Watch) error {
	for {
		batch, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		view := c.config.Store.View()
		for _, change := range batch.Changes {
			c.changes.note(c.config.Source.Affected(view, change))
		}
	}
}

// carry looks at what was collected, a moment after it began to come, and now and then at everything.
func (c *Cache) carry(ctx context.Context) error {
	everything := time.NewTicker(recheck)
	defer everything.Stop()
	pause := time.NewTimer(gather)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-everything.C:
			c.changes.note(nil, false)
			continue
		case <-c.changes.wake:
		}
		pause.Reset(gather)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause.C:
		}
		c.flush(c.changes.take())
	}
}

// flush builds what changed anew, once a variant, and answers the streams that asked for it and wait.
func (c *Cache) flush(services map[string]bool, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view := c.config.Store.View()
	again := c.again
	c.again = map[*stream]map[Type]bool{}
	for s, types := range again {
		for t := range types {
			c.answer(s, t)
		}
	}
	for _, v := range c.variants {
		touched := c.renew(v, view, services, all)
		for _, s := range v.concerned(touched) {
			for _, t := range order {
				if touched[t] != nil {
					c.answer(s, t)
				}
			}
		}
	}
}

// touched are the resources that changed, by type and name.
type touched map[Type]map[string]bool

func (t touched) add(key typedName) {
	if t[key.of] == nil {
		t[key.of] = map[string]bool{}
	}
	t[key.of][key.name] = true
}

// renew builds what a variant holds of the services anew, and returns what came out different.
func (c *Cache) renew(v *variant, view raftstore.Reader, services map[string]bool, all bool) touched {
	out := touched{}
	if all {
		services = map[string]bool{}
		for name := range v.services {
			services[name] = true
		}
	}
	listed := false
	for name := range services {
		known := v.services[name]
		if known == nil {
			listed = true // it may be new to those who asked for all
			continue
		}
		existed := known.offer.exists()
		if err := c.renewService(v, view, known, out); err != nil {
			c.unsendable(Endpoints, err)
			continue
		}
		listed = listed || existed != known.offer.exists()
	}
	if listed || all {
		if len(v.wild[Clusters]) > 0 {
			out.add(typedName{Clusters, ""}) // the set itself
		}
	}
	for key, was := range v.others {
		if !all && (key != typedName{Routes, Outbound} || !listed) {
			continue
		}
		now, err := c.buildOther(v, view, key)
		if err != nil {
			c.unsendable(key.of, err)
			continue
		}
		if now.version != was.version {
			v.others[key] = now
			out.add(key)
		}
	}
	return out
}

// renewService plans a service anew and builds what was asked for of it.
func (c *Cache) renewService(v *variant, view raftstore.Reader, s *serviceState, out touched) error {
	next, err := c.offer(v, view, s.offer.service)
	if err != nil {
		return err
	}
	if next.exists() && next.plan.SameAs(s.offer.plan) {
		return nil
	}
	now := c.config.Now()
	if s.offer.exists() && !next.exists() {
		s.lingers = now.Add(linger)
		name := s.offer.service
		time.AfterFunc(linger, func() { c.changes.note([]string{name}, true) })
	}
	s.offer = next
	for key, was := range s.resources {
		if key.of == Clusters && !next.exists() && now.Before(s.lingers) {
			continue
		}
		built, err := c.build(v, s, key)
		if err != nil {
			c.unsendable(key.of, err)
			continue
		}
		if built.version != was.version {
			s.resources[key] = built
			out.add(key)
		}
	}
	return nil
}

// concerned are the streams that asked for something of what was touched.
func (v *variant) concerned(t touched) []*stream {
	found := map[*stream]bool{}
	for of, names := range t {
		maps.Copy(found, v.wild[of])
		for name := range names {
			maps.Copy(found, v.interest[typedName{of, name}])
		}
	}
	return slices.Collect(maps.Keys(found))
}
