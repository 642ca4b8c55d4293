package raftstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/row"
)

// Set is a family of sets of rows, each set replaced as a whole and of any size. A replacement writes only the
// differences. One that does not fit into a command is staged under a new generation in several commands, invisible to
// readers, until one small transaction switches to it; the old generation is removed afterwards.
type Set[M proto.Message] struct {
	items Table[M]
	heads Table[*statev1.SetHead]
}

// NewSet declares the sets of that name, which use two tables: name and name.heads. See [NewTable].
func NewSet[M proto.Message](name string) Set[M] {
	return Set[M]{items: NewTable[M](name), heads: NewTable[*statev1.SetHead](name + ".heads")}
}

// stagedBytes is how much is staged in one command: half of what would fit, so that heartbeats pass in between.
const stagedBytes = machine.MaxCommand / 2

// Prefix names the row that changes with every replacement of a set, for [Store.Watch] and package feed. Sets whose
// name begins with this one's are included.
func (t Set[M]) Prefix(set string) Prefix { return t.heads.Prefix(set) }

// Get returns one item of a set.
func (t Set[M]) Get(r Reader, set, item string) (Row[M], bool, error) {
	head, ok, err := t.heads.Get(r, set)
	if err != nil || !ok {
		return Row[M]{}, false, err
	}
	row, ok, err := t.items.Get(r, below(set, head.Value.GetGeneration())+item)
	row.Key = item
	return row, ok, err
}

// All iterates over the items of a set, in order. The Key of each row is the item's.
func (t Set[M]) All(r Reader, set string) iter.Seq2[Row[M], error] {
	return func(yield func(Row[M], error) bool) {
		head, ok, err := t.heads.Get(r, set)
		if err != nil {
			yield(Row[M]{}, err)
			return
		}
		if !ok {
			return
		}
		prefix := below(set, head.Value.GetGeneration())
		for row, err := range t.items.All(r, prefix) {
			row.Key = strings.TrimPrefix(row.Key, prefix)
			if !yield(row, err) {
				return
			}
		}
	}
}

// Replace makes a set consist of exactly these items. Readers see either all of the set before or all of it after. Of
// several at a time the last one wins.
func (t Set[M]) Replace(ctx context.Context, s *Store, set string, items map[string]M) (Revision, error) {
	if err := checkSet(set, items); err != nil {
		return 0, fmt.Errorf("replace set %q of %s: %w", set, t.items.name, err)
	}
	revision, err := s.Update(ctx, func(tx *Tx) error { return t.replaceInPlace(tx, set, items) })
	if errors.Is(err, ErrTooLarge) {
		revision, err = t.replaceStaged(ctx, s, set, items)
	}
	if err != nil {
		return 0, fmt.Errorf("replace set %q of %s: %w", set, t.items.name, err)
	}
	return revision, nil
}

// replaceInPlace writes the differences in one transaction.
func (t Set[M]) replaceInPlace(tx *Tx, set string, items map[string]M) error {
	head, ok, err := t.heads.Get(tx, set)
	if err != nil {
		return err
	}
	generation := head.Value.GetGeneration()
	if !ok {
		generation = rand.Text()
	}
	prefix := below(set, generation)
	before := len(tx.written)
	for row, err := range t.items.All(tx, prefix) {
		if err != nil {
			return err
		}
		if _, stays := items[strings.TrimPrefix(row.Key, prefix)]; !stays {
			if err := t.items.Delete(tx, row.Key); err != nil {
				return err
			}
		}
	}
	for _, item := range slices.Sorted(maps.Keys(items)) {
		if err := t.items.Put(tx, prefix+item, items[item]); err != nil {
			return err
		}
	}
	if ok && len(tx.written) == before {
		return nil
	}
	return t.heads.Put(
		tx,
		set,
		&statev1.SetHead{Generation: generation, Replacements: head.Value.GetReplacements() + 1},
	)
}

// replaceStaged writes all items under a new generation, switches to it, and removes what is no longer in use.
func (t Set[M]) replaceStaged(ctx context.Context, s *Store, set string, items map[string]M) (Revision, error) {
	generation := rand.Text()
	prefix := below(set, generation)
	for chunk := range chunks(items) {
		_, err := s.Update(ctx, func(tx *Tx) error {
			for _, item := range chunk {
				if err := t.items.Put(tx, prefix+item, items[item]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("stage %d items: %w", len(chunk), err)
		}
	}
	revision, err := s.Update(ctx, func(tx *Tx) error {
		staged := 0
		for range tx.rows(t.items.name, prefix) {
			staged++
		}
		if staged != len(items) {
			return fmt.Errorf("the set was replaced by another caller meanwhile: %w", ErrBusy)
		}
		head, _, err := t.heads.Get(tx, set)
		if err != nil {
			return err
		}
		return t.heads.Put(
			tx,
			set,
			&statev1.SetHead{Generation: generation, Replacements: head.Value.GetReplacements() + 1},
		)
	})
	if err != nil {
		return 0, fmt.Errorf("switch to the staged items: %w", err)
	}
	if err := t.sweep(ctx, s, set); err != nil {
		// The set is replaced, and the next staged replacement sweeps again.
		s.log.Warn(
			"items of a set that are no longer in use stay stored",
			"table",
			t.items.name,
			"set",
			set,
			"error",
			err,
		)
	}
	return revision, nil
}

// sweep removes every generation of a set except the one in use, in commands that fit.
func (t Set[M]) sweep(ctx context.Context, s *Store, set string) error {
	for {
		more := false
		_, err := s.Update(ctx, func(tx *Tx) error {
			more = false
			head, _, err := t.heads.Get(tx, set)
			if err != nil {
				return err
			}
			current := below(set, head.Value.GetGeneration())
			size := 0
			for e := range tx.state.Below(t.items.name, set+"/") {
				if strings.HasPrefix(e.Key, current) {
					continue
				}
				if size += len(e.Key) + 64; size > stagedBytes {
					more = true
					return nil
				}
				if err := t.items.Delete(tx, e.Key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || !more {
			return err
		}
	}
}

// below returns the prefix of the keys of a set's generation. Neither the name of a set nor a generation contains a
// '/'.
func below(set, generation string) string { return set + "/" + generation + "/" }

func checkSet[M any](set string, items map[string]M) error {
	if set == "" || strings.Contains(set, "/") || len(set) > row.MaxKey/4 {
		return fmt.Errorf("a set's name has 1 to %d bytes and no '/'", row.MaxKey/4)
	}
	for item := range items {
		if item == "" || len(item) > row.MaxKey/2 {
			return fmt.Errorf("the name of an item is empty or longer than %d bytes", row.MaxKey/2)
		}
	}
	return nil
}

// chunks divides the items into parts that fit into a command, each in order.
func chunks[M proto.Message](items map[string]M) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		var chunk []string
		size := 0
		for _, item := range slices.Sorted(maps.Keys(items)) {
			n := proto.Size(items[item]) + 2*len(item) + 256
			if len(chunk) > 0 && size+n > stagedBytes {
				if !yield(chunk) {
					return
				}
				chunk, size = nil, 0
			}
			chunk = append(chunk, item)
			size += n
		}
		if len(chunk) > 0 {
			yield(chunk)
		}
	}
}
