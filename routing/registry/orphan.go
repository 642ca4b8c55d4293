package registry

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ententehq/entente/raftstore"
)

const (
	// orphanInterval is how often the leader searches for orphaned generations: staged, and never switched to.
	orphanInterval = time.Minute
	// orphanAfter is how long no row must have been added to a generation before it is orphaned. A replacement adds
	// rows all the time and gives up when its call ends.
	orphanAfter = 10 * time.Minute
)

// orphans is what the leader knows of generations that do not count. A new leader starts with an empty value.
type orphans struct {
	searched time.Time
	seen     map[generation]growth
}

// growth is the revision of the newest row of a generation, and since when it is the newest.
type growth struct {
	newest raftstore.Revision
	since  time.Time
}

// due updates which generations do not count, and returns those that are orphaned.
func (o *orphans) due(found map[generation]raftstore.Revision, now time.Time) (orphaned []generation) {
	seen := make(map[generation]growth, len(found))
	for g, newest := range found {
		was, known := o.seen[g]
		if !known || was.newest != newest || now.Before(was.since) {
			was = growth{newest, now}
		}
		seen[g] = was
		if now.Sub(was.since) >= orphanAfter {
			orphaned = append(orphaned, g)
		}
	}
	o.seen = seen
	slices.SortFunc(orphaned, func(a, b generation) int { return strings.Compare(a.set.in(a.name), b.set.in(b.name)) })
	return orphaned
}

// sweepOrphans deletes orphaned generations, at most once a minute. They are left by replacements whose member stopped,
// or lost the leader, before they ended.
func (c *Collector) sweepOrphans(ctx context.Context) {
	now := c.now()
	if passed := now.Sub(c.orphans.searched); passed >= 0 && passed < orphanInterval {
		return
	}
	c.orphans.searched = now
	found, err := uncounted(c.store.View())
	if err != nil {
		c.log.Error("cannot read the instances", "error", err)
		return
	}
	for _, g := range c.orphans.due(found, now) {
		rows, err := c.deleteGeneration(ctx, g)
		if err != nil {
			warn(ctx, c.log, "instances of an unfinished replacement are not deleted yet; they do not count", err)
			return
		}
		if rows > 0 {
			c.log.Info("deleted the instances of an unfinished replacement", "set", g.set.String(), "rows", rows)
		}
	}
}

// uncounted returns the generations that do not count, each with the revision of its newest row.
func uncounted(r raftstore.Reader) (map[generation]raftstore.Revision, error) {
	found := map[generation]raftstore.Revision{}
	d := decoder{r: r}
	for row, err := range Instances.All(r, "") {
		if err != nil {
			return nil, err
		}
		key, counts, err := d.key(row.Key)
		if err != nil {
			return nil, err
		}
		if g := (generation{key.set, key.generation}); !counts {
			found[g] = max(found[g], row.Revision)
		}
	}
	return found, nil
}
