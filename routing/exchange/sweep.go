package exchange

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ententehq/entente/access/audit"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/registry"
)

const sweepInterval = time.Second

// sweeper ends, while this member leads, what was shared under agreements that have ended, marks imports as expired
// that no stream confirms, and deletes what ended imports leave behind. Between two sweeps it caches what is shared.
type sweeper struct {
	store      *raftstore.Store
	collector  *registry.Collector
	agreements Agreements
	audit      audit.Recorder
	liveness   *Liveness
	metrics    *metrics
	ttl        time.Duration
	now        func() time.Time
	log        hclog.Logger

	sharedState
}

// sharedState is what a sweeper caches.
type sharedState struct {
	imports []serviceImport
	exports []serviceExport
	ids     map[string]string // of each import, by key
	// exported and imported are the revisions that exports and imports were read at, ended and orphaned those up to
	// which ended agreements and orphaned sets were handled.
	exported, imported, ended, orphaned raftstore.Revision
}

// run sweeps every second until ctx ends.
func (s *sweeper) run(ctx context.Context) {
	s.liveness.Reset()
	s.sharedState = sharedState{}
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("what is shared with other clusters cannot be cleaned up; retrying", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *sweeper) sweep(ctx context.Context) error {
	view := s.store.View()
	if err := s.load(view); err != nil {
		return err
	}
	if err := s.endShared(ctx, view); err != nil {
		return err
	}
	if err := s.expire(ctx, view); err != nil {
		return err
	}
	return s.deleteOrphans(ctx)
}

// load reads the exports and imports if they have changed.
func (s *sweeper) load(view *raftstore.View) (err error) {
	if now := exportTable.PrefixRevision(view, ""); now != s.exported || s.exports == nil {
		if s.exports, err = exportTable.list(view); err != nil {
			return err
		}
		s.exported = now
	}
	if now := importTable.PrefixRevision(view, ""); now != s.imported || s.ids == nil {
		if s.imports, err = importTable.list(view); err != nil {
			return err
		}
		s.imported, s.ids = now, make(map[string]string, len(s.imports))
		for _, i := range s.imports {
			s.ids[i.key()] = i.id
		}
	}
	return nil
}

// endShared deletes the exports and imports whose agreement has ended. They do not count any more, and a new agreement
// with the same domain starts without any.
func (s *sweeper) endShared(ctx context.Context, view *raftstore.View) error {
	if view.Revision() == s.ended {
		return nil
	}
	const reason = "the relationship that it was created under has ended"
	since := make(map[string]time.Time)
	ended := func(domain string, relationshipCreated time.Time) (bool, error) {
		at, known := since[domain]
		if !known {
			a, found, err := s.agreements.With(view, domain)
			if err != nil {
				return false, err
			}
			if found {
				at = a.Since
			}
			since[domain] = at
		}
		return at.IsZero() || !at.Equal(relationshipCreated), nil
	}
	for _, e := range s.exports {
		over, err := ended(e.To, e.relationshipCreated)
		if err == nil && over {
			err = s.audited(ctx, "end export", e.Name+" to "+e.To, reason, func(tx *raftstore.Tx) error {
				row, found, err := exportTable.Get(tx, exportKey(e.To, e.Name))
				created := row.Value.GetRelationshipCreateTime().AsTime()
				if err != nil || !found || !created.Equal(e.relationshipCreated) {
					return err
				}
				return exportTable.Delete(tx, row.Key)
			})
		}
		if err != nil {
			return err
		}
	}
	for _, i := range s.imports {
		over, err := ended(i.From, i.relationshipCreated)
		if err == nil && over {
			err = s.audited(ctx, "end import", i.Service+" from "+i.From, reason, func(tx *raftstore.Tx) error {
				row, found, err := importTable.Get(tx, i.key())
				if err != nil || !found || row.Value.GetId() != i.id {
					return err
				}
				return importTable.Delete(tx, row.Key)
			})
		}
		if err != nil {
			return err
		}
	}
	s.ended = view.Revision()
	return nil
}

// expire marks the imports from domains as expired, or as confirmed again, with one row for each domain.
func (s *sweeper) expire(ctx context.Context, view *raftstore.View) error {
	domains := make(map[string]bool)
	for _, i := range s.imports {
		domains[i.From] = false
	}
	var unused []string // expired domains from which nothing is imported any more
	for row, err := range registry.ImportSources.All(view, "") {
		if err != nil {
			return err
		}
		if _, imported := domains[row.Key]; !imported {
			unused = append(unused, row.Key)
			continue
		}
		domains[row.Key] = true
	}
	expire, revive := s.liveness.due(domains, s.ttl)
	if len(expire) > 0 {
		if err := registry.ProveLeadership(ctx, s.store); err != nil {
			return fmt.Errorf("imports seem to have expired, but this member cannot prove that it leads: %w", err)
		}
	}
	for _, domain := range expire {
		detail := fmt.Sprintf("no stream confirmed them for %s", s.ttl)
		err := s.audited(ctx, "imports expire", "services from "+domain, detail, func(tx *raftstore.Tx) error {
			return registry.ImportSources.Put(tx, domain, &statev1.ImportSource{ExpireTime: timestamppb.New(s.now())})
		})
		if err != nil {
			return err
		}
		s.metrics.expired.Inc()
		s.log.Warn("imports expired; their instances are left out of hints until a stream reconnects",
			"from", domain, "import_ttl", s.ttl)
	}
	for _, domain := range append(revive, unused...) {
		err := s.audited(ctx, "imports no longer expired", "services from "+domain, "", func(tx *raftstore.Tx) error {
			return registry.ImportSources.Delete(tx, domain)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteOrphans deletes what was received for imports that have ended, none of which counts.
func (s *sweeper) deleteOrphans(ctx context.Context) error {
	view := s.store.View()
	if err := s.load(view); err != nil {
		return err
	}
	now := max(registry.ImportedSets.PrefixRevision(view, ""), importTable.PrefixRevision(view, ""))
	if now == s.orphaned {
		return nil
	}
	for row, err := range registry.ImportedSets.All(view, "") {
		if err != nil {
			return err
		}
		if s.ids[row.Key] == row.Value.GetImport() {
			continue
		}
		if err := s.deleteOrphan(ctx, row.Key, row.Value.GetImport()); err != nil && !errors.Is(err, errImportChanged) {
			return err
		}
	}
	s.orphaned = now
	return nil
}

// deleteOrphan deletes what was received for one import, unless it has come to count.
func (s *sweeper) deleteOrphan(ctx context.Context, key, id string) error {
	service, from, _ := strings.Cut(key, "/")
	return s.collector.DeleteImported(ctx, service, from, func(tx *raftstore.Tx) error {
		received, found, err := registry.ImportedSets.Get(tx, key)
		if err != nil {
			return err
		}
		wanted, exists, err := importTable.Get(tx, key)
		if err != nil {
			return err
		}
		if !found || received.Value.GetImport() != id || exists && wanted.Value.GetId() == id {
			return errImportChanged
		}
		return nil
	})
}

// audited runs a transaction, and records it in the audit log.
func (s *sweeper) audited(ctx context.Context, action, object, detail string, do func(*raftstore.Tx) error) error {
	event := audit.Event{Caller: "routing", Action: action, Object: object, Detail: detail}
	return audit.Do(s.audit, event, func(line *audit.Event) error {
		revision, err := s.store.Update(ctx, do)
		if err != nil {
			return err
		}
		line.Revision = uint64(revision)
		s.log.Info(action, "object", object, "revision", revision)
		return nil
	})
}
