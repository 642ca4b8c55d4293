package routing

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/raftstore"
)

const (
	sweepInterval = time.Second
	// sweepBatch keeps changes of very many rows within the size of a transaction.
	sweepBatch = 500
)

// sweepLeases runs while this member leads: by its own memory it knows which leases ran out.
func (m *Manager) sweepLeases(ctx context.Context) {
	m.ledger.reset()
	s := sweeper{Manager: m}
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		s.sweep(ctx)
		s.sweepStrays(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweeper keeps the table of leases decoded between two sweeps.
type sweeper struct {
	*Manager
	table []held
	read  raftstore.Revision
	// left are the leases that are gone and left instances behind.
	left    []string
	indexed raftstore.Revision
	strays  strays
}

// sweep looks once.
func (s *sweeper) sweep(ctx context.Context) {
	if err := s.look(s.store.View()); err != nil {
		s.log.Error("the leases cannot be read", "error", err)
		return
	}
	lapse, gone := s.ledger.due(s.table, s.now())
	if len(lapse)+len(gone) > 0 && !s.proveLead(ctx) {
		return
	}
	for batch := range slices.Chunk(lapse, sweepBatch) {
		if err := s.change(ctx, batch, "lease runs out", markLapsed(s.now())); err != nil {
			s.complain(ctx, "leases that were not renewed do not count as run out yet", err)
			return
		}
		s.metrics.lapsed.Add(float64(len(batch)))
	}
	for batch := range slices.Chunk(gone, sweepBatch) {
		if err := s.change(ctx, batch, "remove lease", removeLapsed); err != nil {
			s.complain(ctx, "instances whose lease ran out long ago are not removed yet", err)
			return
		}
	}
	for _, lease := range s.left {
		if err := s.clear(ctx, lease); err != nil {
			s.complain(ctx, "rows of a lease that is gone stay stored", err)
			return
		}
	}
}

func (s *sweeper) complain(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		s.log.Warn(what, "error", err)
	}
}

// look reads what changed.
func (s *sweeper) look(view *raftstore.View) error {
	leases, index := Leases.PrefixRevision(view, ""), leaseServices.PrefixRevision(view, "")
	if leases == s.read && index == s.indexed {
		return nil
	}
	var table []held
	known := make(map[string]bool)
	for row, err := range Leases.All(view, "") {
		if err != nil {
			return err
		}
		known[row.Key] = true
		table = append(table, held{
			lease: row.Key, ttl: row.Value.GetTtl().AsDuration(), goneAfter: row.Value.GetGoneAfter().AsDuration(),
			lapsed: row.Value.GetLapseTime() != nil, revision: row.Revision,
		})
	}
	var left []string
	for row, err := range leaseServices.All(view, "") {
		if err != nil {
			return err
		}
		lease := row.Key[:min(len(row.Key), 2*leaseIDSize)]
		if !known[lease] && (len(left) == 0 || left[len(left)-1] != lease) {
			left = append(left, lease)
		}
	}
	s.table, s.left, s.read, s.indexed = table, left, leases, index
	return nil
}

// proveLead makes sure that this member still leads in the term in which it gathered what it knows: one that was cut off and
// does not know it has heard of no renewals.
func (s *sweeper) proveLead(ctx context.Context) bool {
	term := s.store.Term()
	if _, err := s.store.Read(ctx, raftstore.ReadOptions{Linearizable: true}); err != nil {
		s.complain(ctx, "leases seem to have run out, and this member cannot prove that it leads", err)
		return false
	}
	return s.store.IsLeader() && s.store.Term() == term && ctx.Err() == nil
}

// markLapsed writes into one row what makes all instances of a lease unhealthy. A lease that was taken up again since it was looked at
// stays.
func markLapsed(now time.Time) func(*raftstore.Tx, held) error {
	return func(tx *raftstore.Tx, h held) error {
		row, found, err := Leases.Get(tx, h.lease)
		if err != nil || !found || row.Revision != h.revision {
			return err
		}
		row.Value.LapseTime = timestamppb.New(now)
		return Leases.Put(tx, h.lease, row.Value)
	}
}

// removeLapsed removes the one row without which the instances of a lease no longer count. They are cleared away later.
func removeLapsed(tx *raftstore.Tx, h held) error {
	row, found, err := Leases.Get(tx, h.lease)
	if err != nil || !found || row.Revision != h.revision {
		return err
	}
	return Leases.Delete(tx, h.lease)
}

// change does to each lease what is to be done, in one transaction, with a line of the audit log before and after.
func (m *Manager) change(ctx context.Context, leases []held, action string, do func(*raftstore.Tx, held) error) error {
	for _, h := range leases {
		detail := fmt.Sprintf("it was not renewed for %s", h.ttl)
		if h.lapsed {
			detail = fmt.Sprintf("it ran out %s ago", h.goneAfter)
		}
		if err := m.audit.Record(access.Event{Caller: "routing", Action: action, Object: "lease " + h.lease, Result: access.ResultBegun, Detail: detail}); err != nil {
			return fmt.Errorf("record that the lease %s ends: %w", h.lease, err)
		}
	}
	revision, err := m.store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, h := range leases {
			if err := do(tx, h); err != nil {
				return err
			}
		}
		return nil
	})
	result, detail := access.ResultDone, ""
	if err != nil {
		result, detail = access.ResultFailed, err.Error()
	}
	for _, h := range leases {
		if rerr := m.audit.Record(access.Event{Caller: "routing", Action: action, Object: "lease " + h.lease, Result: result, Revision: uint64(revision), Detail: detail}); rerr != nil {
			m.log.Error("the end of a lease is not in the audit log", "lease", h.lease, "error", rerr)
		}
	}
	if err == nil {
		m.log.Info(action, "leases", len(leases), "revision", revision)
	}
	return err
}
