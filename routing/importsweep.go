package routing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// sweepImports runs while this member leads: it ends what was shared under agreements that have ended, has imports expire that no
// stream confirms, and clears away what ended imports left behind.
func (m *Manager) sweepImports(ctx context.Context) {
	m.sightings.reset()
	s := importSweeper{sweeper: sweeper{Manager: m}}
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if err := s.sweepOnce(ctx); err != nil {
			s.complain(ctx, "what is shared with other clusters is not tidied up; it is tried again", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// importSweeper keeps what is shared decoded between two sweeps.
type importSweeper struct {
	sweeper
	imports  []Import
	exports  []Export
	ids      map[string]string // of each import, by key
	imported raftstore.Revision
	exported raftstore.Revision
	ended    raftstore.Revision // up to where ended agreements were looked for
	orphaned raftstore.Revision
}

func (s *importSweeper) sweepOnce(ctx context.Context) error {
	view := s.store.View()
	if err := s.readShared(view); err != nil {
		return err
	}
	if err := s.endShared(ctx, view); err != nil {
		return err
	}
	if err := s.age(ctx, view); err != nil {
		return err
	}
	return s.clearOrphans(ctx)
}

// readShared reads what changed.
func (s *importSweeper) readShared(view *raftstore.View) (err error) {
	if now := Exports.PrefixRevision(view, ""); now != s.exported || s.exports == nil {
		if s.exports, err = exports(view, ""); err != nil {
			return err
		}
		s.exported = now
	}
	if now := Imports.PrefixRevision(view, ""); now != s.imported || s.ids == nil {
		if s.imports, err = imports(view); err != nil {
			return err
		}
		s.imported, s.ids = now, make(map[string]string, len(s.imports))
		for _, i := range s.imports {
			s.ids[i.key()] = i.id
		}
	}
	return nil
}

// endShared removes the exports and imports whose agreement has ended. None of them counts any more; a new agreement with the same
// domain begins with none.
func (s *importSweeper) endShared(ctx context.Context, view *raftstore.View) error {
	if view.Revision() == s.ended {
		return nil
	}
	since := make(map[string]time.Time)
	ended := func(domain string, agreed time.Time) (bool, error) {
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
		return at.IsZero() || !at.Equal(agreed), nil
	}
	for _, e := range s.exports {
		if over, err := ended(e.To, e.agreed); err != nil {
			return err
		} else if over {
			err := s.recorded(ctx, "end export", e.Name+" to "+e.To, "the relationship that it was made under has ended", func(tx *raftstore.Tx) error {
				row, found, err := Exports.Get(tx, exportKey(e.To, e.Name))
				if err != nil || !found || !row.Value.GetAgreed().AsTime().Equal(e.agreed) {
					return err
				}
				return Exports.Delete(tx, row.Key)
			})
			if err != nil {
				return err
			}
		}
	}
	for _, i := range s.imports {
		if over, err := ended(i.From, i.agreed); err != nil {
			return err
		} else if over {
			err := s.recorded(ctx, "end import", i.Service+" from "+i.From, "the relationship that it was made under has ended", func(tx *raftstore.Tx) error {
				row, found, err := Imports.Get(tx, i.key())
				if err != nil || !found || row.Value.GetId() != i.id {
					return err
				}
				return Imports.Delete(tx, row.Key)
			})
			if err != nil {
				return err
			}
		}
	}
	s.ended = view.Revision()
	return nil
}

// age has imports expire and revive, a row for each domain.
func (s *importSweeper) age(ctx context.Context, view *raftstore.View) error {
	domains := make(map[string]bool)
	for _, i := range s.imports {
		domains[i.From] = false
	}
	var left []string // expired domains that nothing is imported from any more
	for row, err := range ImportSources.All(view, "") {
		if err != nil {
			return err
		}
		if _, imported := domains[row.Key]; !imported {
			left = append(left, row.Key)
			continue
		}
		domains[row.Key] = true
	}
	expire, revive := s.sightings.due(domains, s.importTTL, s.now())
	if len(expire) > 0 && !s.proveLead(ctx) {
		return nil
	}
	for _, domain := range expire {
		err := s.recorded(ctx, "imports expire", "services from "+domain, fmt.Sprintf("no stream confirmed them for %s", s.importTTL), func(tx *raftstore.Tx) error {
			return ImportSources.Put(tx, domain, &statev1.ImportSource{ExpireTime: timestamppb.New(s.now())})
		})
		if err != nil {
			return err
		}
		s.metrics.importsExpired.Inc()
		s.log.Warn("imports have expired: their instances are offered to nobody until a stream is back", "from", domain, "import_ttl", s.importTTL)
	}
	for _, domain := range append(revive, left...) {
		err := s.recorded(ctx, "imports no longer expired", "services from "+domain, "", func(tx *raftstore.Tx) error {
			return ImportSources.Delete(tx, domain)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// clearOrphans removes what came for imports that have ended, in transactions that fit. Nobody sees any of it meanwhile.
func (s *importSweeper) clearOrphans(ctx context.Context) error {
	view := s.store.View()
	if err := s.readShared(view); err != nil {
		return err
	}
	now := max(ImportedSets.PrefixRevision(view, ""), Imports.PrefixRevision(view, ""))
	if now == s.orphaned {
		return nil
	}
	for row, err := range ImportedSets.All(view, "") {
		if err != nil {
			return err
		}
		if s.ids[row.Key] == row.Value.GetImport() {
			continue
		}
		if err := s.clearOrphan(ctx, row.Key, row.Value.GetImport()); err != nil && !errors.Is(err, errMoved) {
			return err
		}
	}
	s.orphaned = now
	return nil
}

// clearOrphan removes what came for one import, unless it turns out to be wanted.
func (s *importSweeper) clearOrphan(ctx context.Context, key, id string) error {
	still := func(tx *raftstore.Tx) error {
		came, found, err := ImportedSets.Get(tx, key)
		if err != nil {
			return err
		}
		wanted, stands, err := Imports.Get(tx, key)
		if err != nil {
			return err
		}
		if !found || came.Value.GetImport() != id || stands && wanted.Value.GetId() == id {
			return errMoved
		}
		return nil
	}
	service, from, _ := strings.Cut(key, "/")
	of := set{service, originMark + from}
	if _, err := s.clearRows(ctx, of.String()+"/", still); err != nil {
		return err
	}
	_, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := still(tx); err != nil {
			return err
		}
		if err := Sets.Delete(tx, of.String()); err != nil {
			return err
		}
		return ImportedSets.Delete(tx, key)
	})
	return err
}

// recorded runs a transaction with a line of the audit log before and after.
func (m *Manager) recorded(ctx context.Context, action, object, detail string, do func(*raftstore.Tx) error) error {
	event := access.Event{Caller: "routing", Action: action, Object: object, Result: access.ResultBegun, Detail: detail}
	if err := m.audit.Record(event); err != nil {
		return fmt.Errorf("record: %s, %s: %w", action, object, err)
	}
	revision, err := m.store.Update(ctx, do)
	event.Result, event.Detail, event.Revision = access.ResultDone, "", uint64(revision)
	if err != nil {
		event.Result, event.Detail = access.ResultFailed, err.Error()
	}
	if rerr := m.audit.Record(event); rerr != nil {
		m.log.Error("the audit log lacks what was done", "action", action, "object", object, "error", rerr)
	}
	if err == nil {
		m.log.Info(action, "object", object, "revision", revision)
	}
	return err
}
