package registry

import (
	"context"
	"errors"
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
		of := set{service, lease}
		if _, err := c.deleteRows(ctx, of.String()+"/", nil); err != nil {
			return err
		}
		_, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
			if err := Sets.Delete(tx, of.String()); err != nil {
				return err
			}
			return leaseServices.Delete(tx, lease+"/"+service)
		})
		if err != nil {
			return err
		}
	}
	return nil
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
