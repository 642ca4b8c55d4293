package routing

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// stageBytes is how much is staged in one transaction: half of what a command holds, so that heartbeats pass in between.
const stageBytes = 256 << 10

// services lists those whose sets a replacement is about, in order.
func (r *replacement) services(reader raftstore.Reader) ([]string, error) {
	concerned := make(map[string]bool, len(r.wanted))
	for service := range r.wanted {
		concerned[service] = true
	}
	if r.service == "" {
		present, err := servicesOf(reader, r.lease)
		if err != nil {
			return nil, err
		}
		for _, service := range present {
			concerned[service] = true
		}
	}
	return slices.Sorted(maps.Keys(concerned)), nil
}

// staged writes each set that differs under a new generation, which nobody sees, and switches to all of them in one small
// transaction. What no longer counts then, or never came to because the call failed, is cleared away; when this member dies before, the
// leader does it after a while.
//
// differences are those from the state of the view; nil: they are not known yet.
func (r *replacement) staged(ctx context.Context, view *raftstore.View, differences []difference) (replaced, error) {
	if differences == nil {
		var err error
		if differences, err = r.compare(ctx, view); err != nil {
			return replaced{}, err
		}
	}
	if err := r.room(view, differences); err != nil {
		return replaced{}, err
	}
	var done replaced
	differences = slices.DeleteFunc(differences, func(d difference) bool { done.count(d); return d.empty() })
	generation := rand.Text()[:12]
	err := r.stage(ctx, differences, generation)
	if err == nil {
		done.revision, err = r.switchTo(ctx, differences, generation)
	}
	over := make([]staging, len(differences))
	for i, d := range differences {
		over[i] = staging{d.set, d.generation}
		if err != nil { // it may have been switched to all the same: then it counts, and stays
			over[i].generation = generation
		}
	}
	r.m.clearSoon(context.WithoutCancel(ctx), over)
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
		_, err := r.m.store.Update(ctx, func(tx *raftstore.Tx) error {
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
			n := proto.Size(value) + keyBytes(d.set, i.Address)
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

// switchTo makes the staged generations those that count, unless somebody else replaced one of the sets meanwhile, or
// cleared away what was staged.
func (r *replacement) switchTo(ctx context.Context, differences []difference, generation string) (raftstore.Revision, error) {
	revision, err := r.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := r.leaseStands(tx); err != nil {
			return err
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
				return fmt.Errorf("somebody else replaced instances of %s meanwhile: %w", d.service, raftstore.ErrBusy)
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
		return 0, fmt.Errorf("switch to the instances that were staged: %w", err)
	}
	return revision, nil
}
