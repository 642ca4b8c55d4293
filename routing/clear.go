package routing

import (
	"context"
	"errors"

	"github.com/ententehq/entente/raftstore"
)

// clearBytes is about how much one transaction that deletes instances takes of a command: of their keys, which are all that it holds.
const clearBytes = stageBytes

// clearRows removes the instances below a prefix, in transactions that fit. Nobody sees any of it meanwhile, for none of them counts. still, if
// given, is asked in each transaction whether that is so; its error ends the clearing. It returns how many are gone.
func (m *Manager) clearRows(ctx context.Context, prefix string, still func(*raftstore.Tx) error) (gone int, err error) {
	var batch []string
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := m.store.Update(ctx, func(tx *raftstore.Tx) error {
			if still != nil {
				if err := still(tx); err != nil {
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
			gone += len(batch)
		}
		batch, size = nil, 0
		return err
	}
	for row, err := range Instances.All(m.store.View(), prefix) {
		if err != nil {
			return gone, err
		}
		n := len(Instances.Name()) + len(row.Key) + 16
		if size+n > clearBytes {
			if err := flush(); err != nil {
				return gone, err
			}
		}
		batch = append(batch, row.Key)
		size += n
	}
	return gone, flush()
}

// clear removes what a lease that is gone left behind.
func (m *Manager) clear(ctx context.Context, lease string) error {
	services, err := servicesOf(m.store.View(), lease)
	if err != nil {
		return err
	}
	for _, service := range services {
		of := set{service, lease}
		if _, err := m.clearRows(ctx, of.String()+"/", nil); err != nil {
			return err
		}
		_, err := m.store.Update(ctx, func(tx *raftstore.Tx) error {
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

// staging is a generation of a set that does not count: it was replaced, or was staged and not switched to.
type staging struct {
	set        set
	generation string
}

// errCounts says that a generation has come to count.
var errCounts = errors.New("the generation counts")

// clearGeneration removes a generation, unless it has come to count.
func (m *Manager) clearGeneration(ctx context.Context, of staging) (gone int, err error) {
	gone, err = m.clearRows(ctx, of.set.in(of.generation), func(tx *raftstore.Tx) error {
		now, err := of.set.generation(tx)
		if err == nil && now == of.generation {
			err = errCounts
		}
		return err
	})
	if errors.Is(err, errCounts) {
		err = nil
	}
	return gone, err
}

// clearSoon has generations that no longer count cleared away beside whatever else is done, or at once where nobody is there for it. What is
// not cleared when the member stops is left to the leader.
func (m *Manager) clearSoon(ctx context.Context, over []staging) {
	select {
	case m.over <- over:
	default:
		m.clearGenerations(ctx, over)
	}
}

// clearOver clears what it is given until ctx ends.
func (m *Manager) clearOver(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case over := <-m.over:
			m.clearGenerations(ctx, over)
		}
	}
}

func (m *Manager) clearGenerations(ctx context.Context, over []staging) {
	for _, of := range over {
		if _, err := m.clearGeneration(ctx, of); err != nil {
			if ctx.Err() == nil {
				m.log.Warn("instances that no longer count stay stored; the leader clears them away later", "set", of.set.String(), "error", err)
			}
			return
		}
	}
}
