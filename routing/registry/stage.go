package registry

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// stageBytes is how much one transaction stages: half of a command, so that heartbeats pass between two of them.
const stageBytes = 256 << 10

// staged writes each set that differs as a new generation, which does not count yet, and switches to all of them in one
// small transaction. Generations that do not count afterwards, because they were replaced or the call failed, are
// deleted. If this member stops before, the leader deletes them later.
//
// differences are those from the state of the view, or nil if they are not known.
func (r *replacement) staged(ctx context.Context, view *raftstore.View, differences []difference) (replaced, error) {
	if differences == nil {
		var err error
		if differences, err = r.compare(ctx, view); err != nil {
			return replaced{}, err
		}
	}
	if err := r.checkQuota(view, differences); err != nil {
		return replaced{}, err
	}
	var done replaced
	differences = slices.DeleteFunc(differences, func(d difference) bool { done.count(d); return d.empty() })
	name := rand.Text()[:12]
	err := r.stage(ctx, differences, name)
	if err == nil {
		done.revision, err = r.switchTo(ctx, differences, name)
	}
	unused := make([]generation, len(differences))
	for i, d := range differences {
		unused[i] = generation{d.set, d.generation}
		if err != nil { // the switch may have happened despite the error; then the generation counts and is not deleted
			unused[i].name = name
		}
	}
	r.collector.deleteSoon(context.WithoutCancel(ctx), unused)
	return done, err
}

// stage writes what is wanted of each set that differs.
func (r *replacement) stage(ctx context.Context, differences []difference, generation string) error {
	type row struct {
		key   string
		value *statev1.Instance
	}
	var batch []row
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := r.store.Update(ctx, func(tx *raftstore.Tx) error {
			for _, row := range batch {
				if err := Instances.Put(tx, row.key, row.value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("stage %d instances: %w", len(batch), err)
		}
		batch, size = batch[:0], 0
		return nil
	}
	for _, d := range differences {
		for _, address := range slices.Sorted(maps.Keys(r.wanted[d.service])) {
			i := r.wanted[d.service][address]
			value := i.Row()
			n := proto.Size(value) + keyBytes(d.set, i)
			if size+n > stageBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			batch = append(batch, row{d.in(generation) + address, value})
			size += n
		}
	}
	return flush()
}

// switchTo makes the staged generations count. It fails with ErrBusy if one of the sets was replaced meanwhile, or if
// rows of a staged generation have been deleted.
func (r *replacement) switchTo(
	ctx context.Context,
	differences []difference,
	generation string,
) (raftstore.Revision, error) {
	revision, err := r.store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := r.begin(tx); err != nil {
			return err
		}
		for p := range r.permits {
			if err := access.PermitsInstance(ctx, tx, p.change, p.service, p.id); err != nil {
				return err
			}
		}
		for _, d := range differences {
			now, err := d.set.generation(tx)
			if err != nil {
				return err
			}
			staged := 0
			for _, err := range Instances.All(tx, d.in(generation)) {
				if err != nil {
					return err
				}
				staged++
			}
			if now != d.generation || staged != len(r.wanted[d.service]) {
				return fmt.Errorf(
					"instances of %s were replaced by another caller meanwhile: %w",
					d.service, raftstore.ErrBusy,
				)
			}
			if err := Sets.Put(tx, d.String(), &statev1.InstanceSet{Generation: generation}); err != nil {
				return err
			}
			if staged > 0 {
				if err := d.index(tx); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("switch to the staged instances: %w", err)
	}
	return revision, nil
}
