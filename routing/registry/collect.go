package registry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/ententehq/entente/raftstore"
)

// deleteBytes is about how much one transaction that deletes instances takes of a command. Deletions consist of keys
// only.
const deleteBytes = stageBytes

// Collector is the garbage collector of instances: it deletes rows that do not count.
type Collector struct {
	store *raftstore.Store
	now   func() time.Time
	log   hclog.Logger
	// replaced passes generations to run.
	replaced chan []generation

	orphans orphans
}

// generation is a generation of a set that does not count, because it was replaced, or staged and not switched to.
type generation struct {
	set  set
	name string
}

func newCollector(c Config) *Collector {
	return &Collector{store: c.Store, now: c.Now, log: c.Logger, replaced: make(chan []generation)}
}

// run deletes the generations that replacements pass on, until ctx ends.
func (c *Collector) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case list := <-c.replaced:
			c.deleteGenerations(ctx, list)
		}
	}
}

// deleteSoon deletes generations that do not count, in the background if run is idle. What is not deleted when the
// member stops is deleted by the leader.
func (c *Collector) deleteSoon(ctx context.Context, list []generation) {
	select {
	case c.replaced <- list:
	default:
		c.deleteGenerations(ctx, list)
	}
}

func (c *Collector) deleteGenerations(ctx context.Context, list []generation) {
	for _, g := range list {
		if _, err := c.deleteGeneration(ctx, g); err != nil {
			warn(ctx, c.log.With("set", g.set.String()),
				"instances that do not count any more are not deleted yet; the leader deletes them later", err)
			return
		}
	}
}

// errCounts means that a generation has come to count.
var errCounts = errors.New("the generation counts")

// deleteGeneration deletes a generation, unless it has come to count. It returns how many rows it deleted.
func (c *Collector) deleteGeneration(ctx context.Context, g generation) (deleted int, err error) {
	deleted, err = c.deleteRows(ctx, g.set.in(g.name), func(tx *raftstore.Tx) error {
		now, err := g.set.generation(tx)
		if err == nil && now == g.name {
			err = errCounts
		}
		return err
	})
	if errors.Is(err, errCounts) {
		err = nil
	}
	return deleted, err
}

// deleteLease deletes the instances of a lease that is gone.
func (c *Collector) deleteLease(ctx context.Context, lease string) error {
	services, err := servicesOf(c.store.View(), lease)
	if err != nil {
		return err
	}
	for _, service := range services {
		if err := c.deleteSet(ctx, set{service, lease}); err != nil {
			return err
		}
	}
	return nil
}

// deleteSet deletes the instances of a service that a lease has lost, or that is left of a lease that is gone.
func (c *Collector) deleteSet(ctx context.Context, of set) error {
	if _, err := c.deleteRows(ctx, of.String()+"/", nil); err != nil {
		return err
	}
	_, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := Sets.Delete(tx, of.String()); err != nil {
			return err
		}
		return leaseServices.Delete(tx, of.leaseKey())
	})
	return err
}

// DeleteImported deletes what is stored for an import that has ended. In each transaction it first calls guard, whose
// error ends it.
func (c *Collector) DeleteImported(ctx context.Context, service, from string, guard func(*raftstore.Tx) error) error {
	of := importedSet(service, from)
	if _, err := c.deleteRows(ctx, of.String()+"/", guard); err != nil {
		return err
	}
	_, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := guard(tx); err != nil {
			return err
		}
		if err := Sets.Delete(tx, of.String()); err != nil {
			return err
		}
		return ImportedSets.Delete(tx, ImportKey(service, from))
	})
	return err
}

// deleteRows deletes the instances below a prefix, none of which count, in transactions that fit into a command. If
// guard is not nil, each transaction calls it first, and its error ends the deletion. deleteRows returns how many rows
// it deleted.
func (c *Collector) deleteRows(
	ctx context.Context,
	prefix string,
	guard func(*raftstore.Tx) error,
) (deleted int, err error) {
	var batch []string
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
			if guard != nil {
				if err := guard(tx); err != nil {
					return err
				}
			}
			for _, key := range batch {
				if err := Instances.Delete(tx, key); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			deleted += len(batch)
		}
		batch, size = nil, 0
		return err
	}
	for row, err := range Instances.All(c.store.View(), prefix) {
		if err != nil {
			return deleted, err
		}
		n := len(Instances.Name()) + len(row.Key) + 16
		if size+n > deleteBytes {
			if err := flush(); err != nil {
				return deleted, err
			}
		}
		batch = append(batch, row.Key)
		size += n
	}
	return deleted, flush()
}

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
