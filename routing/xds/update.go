package xds

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/internal/xdsupdate"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/routing/plan"
)

const (
	// gather is how long changes are gathered before they are distributed to the streams.
	gather = 50 * time.Millisecond
	// linger is how long the cluster of a removed service is kept, so that the routes to it are removed first.
	linger = 2 * time.Second
	// recheck is how often everything is planned again without a write: a bundle expires without one.
	recheck = 5 * time.Second
	// rootsLead is how long the roots of a domain are out before gRPC clients get its instances: twice the interval at
	// which clients read their files again (node/xdsbootstrap).
	rootsLead = 2 * time.Second
)

// returning delays the instances of domains that can be verified again, for clients that read roots from files. The
// cache's lock guards it.
type returning struct {
	// absent has when a plan left out a domain last because it could not be verified.
	absent map[spiffeid.TrustDomain]time.Time
	// until is when the roots of a domain that is back are in the files of every client.
	until map[spiffeid.TrustDomain]time.Time
}

// observe records which domains a plan leaves out and offers, and reports whether it offers one that is not due yet.
func (b *returning) observe(p plan.Plan, now time.Time) (early bool) {
	for _, x := range p.Excluded {
		if td := x.Endpoint.ID.TrustDomain(); !x.Endpoint.Trust.Verifiable() {
			b.absent[td] = now
			delete(b.until, td)
		}
	}
	for _, priority := range p.Priorities {
		for _, l := range priority.Localities {
			for _, e := range l.Endpoints {
				td := e.ID.TrustDomain()
				if last, was := b.absent[td]; was {
					delete(b.absent, td)
					// A service that is subscribed is planned again within recheck: an older plan says nothing.
					if now.Sub(last) < recheck+rootsLead {
						b.until[td] = now.Add(rootsLead)
					}
				}
				early = early || !b.due(td, now)
			}
		}
	}
	return early
}

// due reports whether clients have the roots of a domain, and forgets when they had them.
func (b *returning) due(td spiffeid.TrustDomain, now time.Time) bool {
	until, known := b.until[td]
	if known && !now.Before(until) {
		delete(b.until, td)
		return true
	}
	return !known
}

// Run distributes changes to the streams until ctx ends, and returns the error of ctx.
func (c *Cache) Run(ctx context.Context) error {
	keys := feed.Keys[string]{
		Store: c.config.Store, Over: c.config.Source.Prefixes(), Pace: feed.Pace{Gather: gather},
		Affected: func(view *raftstore.View, change raftstore.Change, set *feed.Set[string]) error {
			services, known := c.config.Source.Affected(view, change)
			set.Add(services...)
			if !known {
				set.AddAll()
			}
			return nil
		},
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return keys.Run(ctx, c.affected, func(view *raftstore.View, a feed.Affected[string]) error {
			c.flush(view, a)
			return nil
		})
	})
	group.Go(func() error {
		tick := time.NewTicker(recheck)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
				c.affected.AddAll()
			}
		}
	})
	return group.Wait()
}

// flush builds the affected resources again, once for each variant, and answers the streams that wait for them.
func (c *Cache) flush(view *raftstore.View, affected feed.Affected[string]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	retry := c.retry
	c.retry = map[*stream]map[Type]bool{}
	for s, types := range retry {
		for t := range types {
			c.send(s, t)
		}
	}
	removed := func(service string) { c.again(service, linger) }
	for _, v := range c.variants {
		changed := v.rebuild(view, affected, removed)
		for _, s := range v.subscribed(changed) {
			for _, t := range xdsupdate.Order {
				if changed[t] != nil {
					c.send(s, t)
				}
			}
		}
	}
}

// changedResources are the names of resources that have changed, by type.
type changedResources map[Type]map[string]bool

func (c changedResources) add(key typedName) {
	if c[key.of] == nil {
		c[key.of] = map[string]bool{}
	}
	c[key.of][key.name] = true
}

// rebuild builds the affected resources of a variant again, and returns those that have changed. It calls removed with
// each service that does not exist any more.
func (v *variant) rebuild(
	view raftstore.Reader, affected feed.Affected[string], removed func(string),
) changedResources {
	changed := changedResources{}
	names := affected.Keys
	if affected.All {
		names = make(map[string]struct{}, len(v.services))
		for name := range v.services {
			names[name] = struct{}{}
		}
	}
	listed := false // whether the list of services may have changed
	for name := range names {
		known := v.services[name]
		if known == nil {
			listed = true // the service may be new to streams with a wildcard
			continue
		}
		existed := known.plan.exists()
		if err := v.rebuildService(view, known, changed, removed); err != nil {
			v.unsendable(Endpoints, err)
			continue
		}
		listed = listed || existed != known.plan.exists()
	}
	if (listed || affected.All) && len(v.wildcards[Clusters]) > 0 {
		changed.add(typedName{Clusters, ""}) // the list of clusters itself
	}
	for key, was := range v.others {
		if !affected.All && (key != typedName{Routes, Outbound} || !listed) {
			continue
		}
		now, err := v.buildOther(view, key)
		if err != nil {
			v.unsendable(key.of, err)
			continue
		}
		if now.Version != was.Version {
			v.others[key] = now
			changed.add(key)
		}
	}
	return changed
}

// rebuildService plans a service again and builds its resources that are subscribed to.
func (v *variant) rebuildService(
	view raftstore.Reader, s *serviceState, changed changedResources, removed func(string),
) error {
	next, err := v.planService(view, s.plan.service)
	if err != nil {
		return err
	}
	if next.exists() && next.plan.SameAs(s.plan.plan) && maps.Equal(next.foreign, s.plan.foreign) {
		return nil
	}
	now := v.config.Now()
	if s.plan.exists() && !next.exists() {
		s.lingers = now.Add(linger)
		removed(s.plan.service)
	}
	s.plan = next
	for key, was := range s.resources {
		if key.of == Clusters && !next.exists() && now.Before(s.lingers) {
			continue
		}
		built, err := v.build(s, key)
		if err != nil {
			v.unsendable(key.of, err)
			continue
		}
		if built.Version != was.Version {
			s.resources[key] = built
			changed.add(key)
		}
	}
	return nil
}

// subscribed returns the streams that subscribe to one of the changed resources.
func (v *variant) subscribed(changed changedResources) []*stream {
	found := map[*stream]bool{}
	for of, names := range changed {
		maps.Copy(found, v.wildcards[of])
		for name := range names {
			maps.Copy(found, v.subscribers[typedName{of, name}])
		}
	}
	return slices.Collect(maps.Keys(found))
}
