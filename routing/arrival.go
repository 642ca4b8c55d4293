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
	"github.com/ententehq/entente/routing/plan"
)

const (
	// storeRate is how many batches of one peer are stored a second, each a write to Raft, of up to storeSets sets or so many
	// instances, and storeInstanceRate of how many instances; what comes faster meanwhile is overtaken by what is newer.
	storeRate, storeBurst                 = 10, 20
	storeInstanceRate, storeInstanceBurst = 4000, 2 * maxImportedFrom
	storeSets, storeInstances             = 64, 2000
	// storeAgain is how long a batch waits that could not be stored for want of a leader.
	storeAgain = time.Second
	// storeAttempts is how often a batch is looked at anew because something moved under it.
	storeAttempts = 5
)

// arrival is a set that came from another cluster, checked in itself.
type arrival struct {
	key       sharedKey
	digest    digest
	withheld  bool
	instances []Instance
	// refused says why it is not taken; nil: it is.
	refused error
	// of is the import that asked for it.
	of Import
}

// errMoved says that an import or an agreement ended while what came for it was being stored.
var errMoved = errors.New("what is imported changed meanwhile")

// storeArrivals stores what came from the peer whose home trust domain is given, all of one trust domain: in one transaction, or
// staged and switched to in one. It returns for each set the named reason for which it was refused, or "" if it is stored.
func (m *Manager) storeArrivals(ctx context.Context, home string, batch []arrival) (outcomes []string, err error) {
	for range storeAttempts {
		if outcomes, err = m.storeOnce(ctx, home, batch); !errors.Is(err, errMoved) && !errors.Is(err, raftstore.ErrBusy) {
			break
		}
	}
	return outcomes, err
}

func (m *Manager) storeOnce(ctx context.Context, home string, batch []arrival) ([]string, error) {
	view := m.store.View()
	room, err := m.importRoom(view)
	if err != nil {
		return nil, err
	}
	outcomes := make([]string, len(batch))
	rows := make(map[string]*statev1.ImportedSet)
	r := &replacement{m: m, lease: originMark + batch[0].key.domain, wanted: make(map[string]map[string]Instance)}
	var writes []arrival
	news := make(map[string]error) // the refusals that are not known yet
	for n, a := range batch {
		err := m.wanted(view, home, a.of)
		if errors.Is(err, errMoved) {
			outcomes[n] = refusedNotImported
			m.metrics.imported.WithLabelValues(refusedNotImported).Inc()
			continue
		}
		if err != nil {
			return nil, err
		}
		if err = a.refused; err == nil {
			err = room.take(a)
		}
		row, changed, serr := m.nextImportedSet(view, a, err)
		if serr != nil {
			return nil, serr
		}
		if err != nil {
			outcomes[n] = reasonOf(err)
		}
		if !changed {
			result := outcomes[n]
			if result == "" {
				result = "unchanged"
			}
			m.metrics.imported.WithLabelValues(result).Inc()
			continue
		}
		rows[a.of.key()] = row
		writes = append(writes, a)
		if err != nil {
			news[a.of.key()] = err
			continue
		}
		of := make(map[string]Instance, len(a.instances))
		for _, i := range a.instances {
			i.Service, i.Lease, i.Origin, i.Registered = a.of.Service, r.lease, a.of.From, m.now()
			of[i.Address.String()] = i
		}
		r.wanted[a.of.Service] = of
	}
	if len(writes) == 0 {
		return outcomes, nil
	}
	r.imported = func(tx *raftstore.Tx) error {
		for _, a := range writes {
			if err := m.wanted(tx, home, a.of); err != nil {
				return err
			}
			if err := ImportedSets.Put(tx, a.of.key(), rows[a.of.key()]); err != nil {
				return err
			}
		}
		return nil
	}
	return outcomes, m.write(ctx, home, r, writes, news)
}

// write runs the transaction, with a line of the audit log before and after for what is stored, and for what is refused: a peer
// that brings very much fills no disk.
func (m *Manager) write(ctx context.Context, home string, r *replacement, writes []arrival, refused map[string]error) error {
	var stored, not []string
	for _, a := range writes {
		name := a.of.Service + " from " + a.of.From
		if why := refused[a.of.key()]; why != nil {
			not = append(not, fmt.Sprintf("%s: %s (%v)", name, reasonOf(why), why))
		} else {
			stored = append(stored, fmt.Sprintf("%s: %d instances, digest %x", name, len(a.instances), a.digest[:8]))
		}
	}
	record := func(result string, revision raftstore.Revision, detail string) error {
		var err error
		for action, list := range map[string][]string{"import instances": stored, "refuse instances": not} {
			if len(list) == 0 {
				continue
			}
			object := fmt.Sprintf("%d services from %s", len(list), writes[0].of.From)
			if len(list) == 1 {
				object, _, _ = strings.Cut(list[0], ":")
			}
			e := access.Event{Caller: "peer " + home, Action: action, Object: object, Result: result, Revision: uint64(revision), Detail: detail}
			if result == access.ResultBegun {
				e.Detail = namedFew(list)
			}
			err = errors.Join(err, m.audit.Record(e))
		}
		return err
	}
	if err := record(access.ResultBegun, 0, ""); err != nil {
		return fmt.Errorf("record that instances are imported: %w", err)
	}
	done, err := r.inPlace(ctx)
	if errors.Is(err, raftstore.ErrTooLarge) {
		done, err = r.staged(ctx, r.m.store.View(), nil)
	}
	result, detail := access.ResultDone, ""
	if err != nil {
		result, detail = access.ResultFailed, err.Error()
	}
	if rerr := record(result, done.revision, detail); rerr != nil {
		m.log.Error("what was imported is not in the audit log", "peer", home, "error", rerr)
	}
	if err != nil {
		return err
	}
	m.metrics.imported.WithLabelValues("stored").Add(float64(len(stored)))
	for _, why := range refused {
		m.metrics.imported.WithLabelValues(reasonOf(why)).Inc()
	}
	if len(not) > 0 {
		m.log.Warn("what a peer exports is refused; what is stored stays", "peer", home, "refused", namedFew(not))
	}
	m.log.Debug("instances imported", "peer", home, "sets", len(stored), "revision", done.revision)
	return nil
}

// namedFew names the first few of a list.
func namedFew(list []string) string {
	const few = 3
	text := strings.Join(list[:min(few, len(list))], "; ")
	if more := len(list) - few; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// wanted says whether an import still stands, under an agreement that is in force and names the peer.
func (m *Manager) wanted(r raftstore.Reader, home string, i Import) error {
	row, found, err := Imports.Get(r, i.key())
	if err != nil {
		return err
	}
	if !found || row.Value.GetId() != i.id {
		return errMoved
	}
	hosted, err := m.agreements.Hosted(r, i.From)
	if err != nil {
		return err
	}
	agreement, found, err := m.agreements.With(r, i.From)
	if err != nil {
		return err
	}
	if hosted || !found || !agreement.InForce || agreement.Peer != home || !i.counts(agreement) {
		return errMoved
	}
	return nil
}

// nextImportedSet is what is to be known of an import after an arrival, and whether that is news.
func (m *Manager) nextImportedSet(r raftstore.Reader, a arrival, refused error) (*statev1.ImportedSet, bool, error) {
	row, found, err := ImportedSets.Get(r, a.of.key())
	if err != nil {
		return nil, false, err
	}
	was := row.Value
	if !found || was.GetImport() != a.of.id {
		was = &statev1.ImportedSet{Import: a.of.id}
	}
	if refused != nil {
		if was.GetRefused() == reasonOf(refused) {
			return nil, false, nil
		}
		was.Refused, was.Refusal, was.RefuseTime = reasonOf(refused), plan.Clip(refused.Error()), timestamppb.New(m.now())
		return was, true, nil
	}
	if string(was.GetDigest()) == string(a.digest[:]) && was.GetRefused() == "" {
		return nil, false, nil
	}
	return &statev1.ImportedSet{
		Import: a.of.id, Digest: a.digest[:], Instances: uint32(len(a.instances)), Withheld: a.withheld, ChangeTime: timestamppb.New(m.now()),
	}, true, nil
}

// importRoom is how much is imported, and registered, while a batch is looked at.
type importRoom struct {
	services, from map[string]int
	all            int
	had            map[string]int // by import
}

// importRoom reads it. What is imported is counted exactly, for it comes from others.
func (m *Manager) importRoom(r raftstore.Reader) (*importRoom, error) {
	registered, err := m.counts.of(r, m.now())
	if err != nil {
		return nil, err
	}
	room := &importRoom{services: registered.services, from: make(map[string]int), had: make(map[string]int)}
	for row, err := range ImportedSets.All(r, "") {
		if err != nil {
			return nil, err
		}
		_, from, _ := strings.Cut(row.Key, "/")
		n := int(row.Value.GetInstances())
		room.had[row.Key] = n
		room.from[from] += n
		room.all += n
	}
	return room, nil
}

// take says whether a set fits beside what is registered, and what else is imported, and counts it if so.
func (o *importRoom) take(a arrival) error {
	more := len(a.instances) - o.had[a.of.key()]
	switch {
	case more <= 0:
	case o.services[a.of.Service]+more > maxInstances:
		return refuse(refusedNoRoom, "service %s would have more than %d instances", a.of.Service, maxInstances)
	case o.from[a.of.From]+more > maxImportedFrom:
		return refuse(refusedNoRoom, "more than %d instances would be imported from %s", maxImportedFrom, a.of.From)
	case o.all+more > maxImported:
		return refuse(refusedNoRoom, "more than %d instances would be imported in all", maxImported)
	}
	o.from[a.of.From] += more
	o.all += more
	return nil
}
