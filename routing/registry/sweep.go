package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ententehq/entente/access/audit"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/registry/preserve"
)

const (
	sweepInterval = time.Second
	// sweepBatch keeps the change of many rows within the size of a command.
	sweepBatch = 500
)

// sweeper ends leases while this member leads. Between two sweeps it caches the table of leases.
type sweeper struct {
	store     *raftstore.Store
	audit     audit.Recorder
	tracker   *Tracker
	collector *Collector
	metrics   *metrics
	now       func() time.Time
	log       hclog.Logger

	catalog   *Catalog
	threshold preserve.Threshold

	table []trackedLease
	read  raftstore.Revision
	// abandoned are the sets of leases that are gone, and those that a lease has lost.
	abandoned []set
	indexed   raftstore.Revision
}

// run sweeps every second until ctx ends.
func (s *sweeper) run(ctx context.Context) {
	s.tracker.Reset()
	s.table, s.abandoned, s.read, s.indexed = nil, nil, 0, 0
	s.collector.orphans = orphans{}
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		s.sweep(ctx)
		s.collector.sweepOrphans(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *sweeper) sweep(ctx context.Context) {
	if err := s.load(s.store.View()); err != nil {
		s.log.Error("cannot read the leases", "error", err)
		return
	}
	expiring, gone := s.tracker.due(s.table)
	if len(expiring)+len(gone) > 0 {
		if err := ProveLeadership(ctx, s.store); err != nil {
			warn(ctx, s.log, "leases seem to have run out, but this member cannot prove that it leads", err)
			return
		}
	}
	for batch := range slices.Chunk(expiring, sweepBatch) {
		if err := s.change(ctx, batch, "lease runs out", markExpired(s.now())); err != nil {
			warn(ctx, s.log, "leases that were not renewed do not count as run out yet", err)
			return
		}
		s.metrics.expired.Add(float64(len(batch)))
	}
	verdicts, err := s.judge(s.store.View(), gone)
	if err != nil {
		warn(ctx, s.log, "cannot read the instances of leases that ran out", err)
		return
	}
	for len(verdicts) > 0 {
		n := batchOf(verdicts)
		if err := s.settle(ctx, verdicts[:n]); err != nil {
			warn(ctx, s.log, "instances of leases that ran out long ago are not removed yet", err)
			return
		}
		verdicts = verdicts[n:]
	}
	for _, of := range s.abandoned {
		if err := s.collector.deleteSet(ctx, of); err != nil {
			warn(ctx, s.log, "rows of a lease that is gone are not deleted yet", err)
			return
		}
	}
}

// warn logs an error, unless it is due to the end of ctx.
func warn(ctx context.Context, log hclog.Logger, message string, err error) {
	if ctx.Err() == nil {
		log.Warn(message, "error", err)
	}
}

// load reads the leases, and the index of their services, if they have changed.
func (s *sweeper) load(view *raftstore.View) error {
	leases, index := Leases.PrefixRevision(view, ""), leaseServices.PrefixRevision(view, "")
	if leases == s.read && index == s.indexed {
		return nil
	}
	var table []trackedLease
	known := make(map[string]bool)
	for row, err := range Leases.All(view, "") {
		if err != nil {
			return err
		}
		known[row.Key] = true
		table = append(table, trackedLease{
			id: row.Key, ttl: row.Value.GetTtl().AsDuration(), removalDelay: s.removalDelay(row.Value),
			expired: row.Value.GetExpireTime() != nil, revision: row.Revision,
		})
	}
	var abandoned []set
	for row, err := range leaseServices.All(view, "") {
		if err != nil {
			return err
		}
		lease, service, _ := strings.Cut(row.Key, "/")
		if !known[lease] || row.Value.GetRemoved() {
			abandoned = append(abandoned, set{service, lease})
		}
	}
	s.table, s.abandoned, s.read, s.indexed = table, abandoned, leases, index
	return nil
}

// ProveLeadership returns an error unless this member leads, in the same term before and after a linearizable read. A
// member that was cut off without noticing has received no reports, and must not act on their absence.
func ProveLeadership(ctx context.Context, store *raftstore.Store) error {
	term := store.Term()
	if _, err := store.Read(ctx, raftstore.ReadOptions{Linearizable: true}); err != nil {
		return err
	}
	if !store.IsLeader() || store.Term() != term {
		return fmt.Errorf("the leader has changed since term %d", term)
	}
	return ctx.Err()
}

// markExpired makes all instances of a lease unhealthy, by a change of the lease's row. A lease that has changed since
// it was read stays.
func markExpired(now time.Time) func(*raftstore.Tx, trackedLease) error {
	return func(tx *raftstore.Tx, l trackedLease) error {
		row, found, err := Leases.Get(tx, l.id)
		if err != nil || !found || row.Revision != l.revision {
			return err
		}
		row.Value.ExpireTime = timestamppb.New(now)
		return Leases.Put(tx, l.id, row.Value)
	}
}

// change applies a function to each lease in one transaction, and records it in the audit log.
func (s *sweeper) change(
	ctx context.Context, leases []trackedLease, action string, do func(*raftstore.Tx, trackedLease) error,
) error {
	events := make([]audit.Event, len(leases))
	for i, l := range leases {
		events[i] = audit.Event{Caller: "routing", Action: action, Object: "lease " + l.id}
		events[i].Detail = fmt.Sprintf("it was not renewed for %s", l.ttl)
	}
	return audit.DoAll(s.audit, events, func(lines []audit.Event) error {
		revision, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
			for _, l := range leases {
				if err := do(tx, l); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i := range lines {
			lines[i].Revision = uint64(revision)
		}
		s.log.Info(action, "leases", len(leases), "revision", revision)
		return nil
	})
}
