package routing

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/raftstore"
)

const (
	sweepInterval = time.Second
	// sweepBatch keeps the removal of very many instances at once within the size of a transaction.
	sweepBatch = 500
)

// sweepLeases runs while this member leads: by its own memory it knows which leases lapsed, and removes those instances.
func (m *Manager) sweepLeases(ctx context.Context) {
	m.ledger.reset()
	s := sweeper{Manager: m}
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		s.sweep(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweeper keeps the leases of the table decoded between two sweeps.
type sweeper struct {
	*Manager
	table []held
	read  raftstore.Revision
}

// sweep looks once.
func (s *sweeper) sweep(ctx context.Context) {
	view := s.store.View()
	if revision := Instances.PrefixRevision(view, ""); revision != s.read {
		list, err := leasesHeld(view)
		if err != nil {
			s.log.Error("the leases cannot be read", "error", err)
			return
		}
		s.table, s.read = list, revision
	}
	lapsed := s.ledger.lapsed(s.table, s.now())
	for batch := range slices.Chunk(lapsed, sweepBatch) {
		if err := s.remove(ctx, batch); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("instances whose lease lapsed are not removed yet", "instances", len(lapsed), "error", err)
			}
			return
		}
	}
}

func leasesHeld(r raftstore.Reader) ([]held, error) {
	var list []held
	for row, err := range Instances.All(r, "") {
		if err != nil {
			return nil, err
		}
		if len(row.Value.GetLease()) > 0 {
			list = append(list, held{key: row.Key, lease: leaseText(row.Value.GetLease()), ttl: row.Value.GetTtl().AsDuration()})
		}
	}
	return list, nil
}

// remove deletes the instances, but for those that were registered anew or deregistered in the meantime.
func (m *Manager) remove(ctx context.Context, lapsed []held) error {
	for _, h := range lapsed {
		err := m.audit.Record(access.Event{
			Caller: "routing", Action: "remove instance", Object: h.key, Result: access.ResultBegun,
			Detail: fmt.Sprintf("its lease of %s was not renewed", h.ttl),
		})
		if err != nil {
			return fmt.Errorf("record the removal of %s: %w", h.key, err)
		}
	}
	removed := 0
	revision, err := m.store.Update(ctx, func(tx *raftstore.Tx) error {
		removed = 0
		for _, h := range lapsed {
			row, ok, err := Instances.Get(tx, h.key)
			if err != nil {
				return err
			}
			if !ok || leaseText(row.Value.GetLease()) != h.lease {
				continue
			}
			if err := Instances.Delete(tx, h.key); err != nil {
				return err
			}
			removed++
		}
		return nil
	})
	result, detail := access.ResultDone, ""
	if err != nil {
		result, detail = access.ResultFailed, err.Error()
	}
	for _, h := range lapsed {
		if rerr := m.audit.Record(access.Event{Caller: "routing", Action: "remove instance", Object: h.key, Result: result, Revision: uint64(revision), Detail: detail}); rerr != nil {
			m.log.Error("the removal of an instance is not in the audit log", "instance", h.key, "error", rerr)
		}
	}
	if err != nil {
		return err
	}
	m.metrics.lapsed.Add(float64(removed))
	m.log.Info("instances removed whose lease lapsed", "instances", removed, "revision", revision)
	return nil
}
