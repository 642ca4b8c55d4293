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
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

// storeAttempts is how often a batch is compared again because something changed while it was stored.
const storeAttempts = 5

// errImportChanged means that an import or an agreement ended while a set that was received for it was being stored.
var errImportChanged = errors.New("the import has changed meanwhile")

// importWriter stores received sets.
type importWriter struct {
	store      *raftstore.Store
	registry   *registry.Registry
	agreements Agreements
	audit      audit.Recorder
	metrics    *metrics
	now        func() time.Time
	log        hclog.Logger
}

// write stores sets of one trust domain that were received from the peer with the given home trust domain, in one
// deciding transaction. It returns for each set the named reason for which it is refused, or "" if it is stored.
func (w *importWriter) write(ctx context.Context, home string, sets []receivedSet) (outcomes []string, err error) {
	for range storeAttempts {
		outcomes, err = w.writeOnce(ctx, home, sets)
		if !errors.Is(err, errImportChanged) && !errors.Is(err, raftstore.ErrBusy) {
			break
		}
	}
	return outcomes, err
}

// importBatch is what is to be written of received sets.
type importBatch struct {
	home     string
	sets     []receivedSet
	rows     map[string]*statev1.ImportedSet // by key of the import
	refused  map[string]error                // refusals that are not stored yet
	services map[string][]registry.Instance
}

func (w *importWriter) writeOnce(ctx context.Context, home string, sets []receivedSet) ([]string, error) {
	view := w.store.View()
	quota, err := w.quota(view)
	if err != nil {
		return nil, err
	}
	outcomes := make([]string, len(sets))
	batch := importBatch{
		home: home, rows: make(map[string]*statev1.ImportedSet), refused: make(map[string]error),
		services: make(map[string][]registry.Instance),
	}
	for n, set := range sets {
		err := w.checkWanted(view, home, set.wanted)
		if errors.Is(err, errImportChanged) {
			outcomes[n] = refusedNotImported
			w.metrics.imported.WithLabelValues(refusedNotImported).Inc()
			continue
		}
		if err != nil {
			return nil, err
		}
		refused := set.refused
		if refused == nil {
			refused = quota.add(set)
		}
		row, changed, err := w.nextRow(view, set, refused)
		if err != nil {
			return nil, err
		}
		if refused != nil {
			outcomes[n] = reasonOf(refused)
		}
		if !changed {
			result := outcomes[n]
			if result == "" {
				result = "unchanged"
			}
			w.metrics.imported.WithLabelValues(result).Inc()
			continue
		}
		batch.rows[set.wanted.key()] = row
		batch.sets = append(batch.sets, set)
		if refused != nil {
			batch.refused[set.wanted.key()] = refused
		} else {
			batch.services[set.wanted.Service] = set.instances
		}
	}
	if len(batch.sets) == 0 {
		return outcomes, nil
	}
	return outcomes, w.audited(ctx, batch)
}

// commit writes a batch into the tables.
func (w *importWriter) commit(ctx context.Context, batch importBatch) (raftstore.Revision, error) {
	from := batch.sets[0].key.domain
	return w.registry.Replacer.ReplaceImported(ctx, from, batch.services, func(tx *raftstore.Tx) error {
		for _, set := range batch.sets {
			if err := w.checkWanted(tx, batch.home, set.wanted); err != nil {
				return err
			}
			key := set.wanted.key()
			if err := registry.ImportedSets.Put(tx, key, batch.rows[key]); err != nil {
				return err
			}
		}
		return nil
	})
}

// audited commits a batch, and records in the audit log what is stored and what is refused. The lines are of bounded
// size, so that a peer cannot fill the disk.
func (w *importWriter) audited(ctx context.Context, batch importBatch) error {
	var stored, refused []string
	for _, set := range batch.sets {
		name := set.wanted.Service + " from " + set.wanted.From
		if why := batch.refused[set.wanted.key()]; why != nil {
			refused = append(refused, fmt.Sprintf("%s: %s (%v)", name, reasonOf(why), why))
		} else {
			stored = append(
				stored,
				fmt.Sprintf("%s: %d instances, digest %x", name, len(set.instances), set.digest[:8]),
			)
		}
	}
	var events []audit.Event
	add := func(action string, list []string) {
		if len(list) == 0 {
			return
		}
		object := fmt.Sprintf("%d services from %s", len(list), batch.sets[0].wanted.From)
		if len(list) == 1 {
			object, _, _ = strings.Cut(list[0], ":")
		}
		events = append(
			events,
			audit.Event{Caller: "peer " + batch.home, Action: action, Object: object, Detail: firstFew(list)},
		)
	}
	add("import instances", stored)
	add("refuse instances", refused)
	return audit.DoAll(w.audit, events, func(lines []audit.Event) error {
		revision, err := w.commit(ctx, batch)
		if err != nil {
			return err
		}
		for i := range lines {
			lines[i].Revision = uint64(revision)
		}
		w.metrics.imported.WithLabelValues("stored").Add(float64(len(stored)))
		for _, why := range batch.refused {
			w.metrics.imported.WithLabelValues(reasonOf(why)).Inc()
		}
		if len(refused) > 0 {
			w.log.Warn(
				"sets that a peer exports are refused; what was stored before stays",
				"peer", batch.home, "refused", firstFew(refused),
			)
		}
		w.log.Debug("instances imported", "peer", batch.home, "sets", len(stored), "revision", revision)
		return nil
	})
}

// firstFew joins the first elements of a list.
func firstFew(list []string) string {
	const few = 3
	text := strings.Join(list[:min(few, len(list))], "; ")
	if more := len(list) - few; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// checkWanted returns errImportChanged unless an import exists, under an agreement that is in force and names the peer.
func (w *importWriter) checkWanted(r raftstore.Reader, home string, i serviceImport) error {
	row, found, err := importTable.Get(r, i.key())
	if err != nil {
		return err
	}
	if !found || row.Value.GetId() != i.id {
		return errImportChanged
	}
	hosted, err := w.agreements.Hosted(r, i.From)
	if err != nil {
		return err
	}
	agreement, found, err := w.agreements.With(r, i.From)
	if err != nil {
		return err
	}
	if hosted || !found || !agreement.InForce || agreement.Peer != home || !i.counts(agreement) {
		return errImportChanged
	}
	return nil
}

// nextRow returns the row of an import after a set was received for it, and whether it differs from the stored one.
func (w *importWriter) nextRow(r raftstore.Reader, set receivedSet, refused error) (*statev1.ImportedSet, bool, error) {
	row, found, err := registry.ImportedSets.Get(r, set.wanted.key())
	if err != nil {
		return nil, false, err
	}
	was := row.Value
	if !found || was.GetImport() != set.wanted.id {
		was = &statev1.ImportedSet{Import: set.wanted.id}
	}
	if refused != nil {
		if was.GetRefused() == reasonOf(refused) {
			return nil, false, nil
		}
		was.Refused, was.Refusal, was.RefuseTime = reasonOf(
			refused,
		), plan.Clip(
			refused.Error(),
		), timestamppb.New(
			w.now(),
		)
		return was, true, nil
	}
	if string(was.GetDigest()) == string(set.digest[:]) && was.GetRefused() == "" {
		return nil, false, nil
	}
	return &statev1.ImportedSet{
		Import: set.wanted.id, Digest: set.digest[:], Instances: uint32(len(set.instances)),
		NotExported: set.notExported, ChangeTime: timestamppb.New(w.now()),
	}, true, nil
}

// importQuota counts what is imported, and registered, while a batch is compared.
type importQuota struct {
	services, from map[string]int
	all            int
	stored         map[string]int // by import
}

// quota counts what is stored. Imported instances are counted exactly, because other clusters decide how many there
// are.
func (w *importWriter) quota(r raftstore.Reader) (*importQuota, error) {
	counts, err := w.registry.Catalog.Counts(r)
	if err != nil {
		return nil, err
	}
	q := &importQuota{services: counts.Services, from: make(map[string]int), stored: make(map[string]int)}
	for row, err := range registry.ImportedSets.All(r, "") {
		if err != nil {
			return nil, err
		}
		_, from, _ := strings.Cut(row.Key, "/")
		n := int(row.Value.GetInstances())
		q.stored[row.Key] = n
		q.from[from] += n
		q.all += n
	}
	return q, nil
}

// add counts a set, or returns a refusal if it does not fit.
func (q *importQuota) add(set receivedSet) error {
	i := set.wanted
	more := len(set.instances) - q.stored[i.key()]
	switch {
	case more <= 0:
	case q.services[i.Service]+more > registry.MaxInstances:
		return refuse(refusedNoRoom, "service %s would have more than %d instances", i.Service, registry.MaxInstances)
	case q.from[i.From]+more > maxImportedFrom:
		return refuse(refusedNoRoom, "more than %d instances would be imported from %s", maxImportedFrom, i.From)
	case q.all+more > maxImported:
		return refuse(refusedNoRoom, "more than %d instances would be imported in total", maxImported)
	}
	q.from[i.From] += more
	q.all += more
	return nil
}
