package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ententehq/entente/access/audit"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry/preserve"
)

// removalDelay returns how long after its end a lease is judged. Within [preserve.Window] it is not known yet which
// others end with it.
func (s *sweeper) removalDelay(lease *statev1.Lease) time.Duration {
	delay := lease.GetRemovalDelay().AsDuration()
	if s.threshold < preserve.Off {
		delay = max(delay, preserve.Window)
	}
	return delay
}

// verdict is what becomes of a lease that ran out so long ago that its instances are to be removed: those of the
// services in keep stay, those in remove go. A lease without services in keep, now or before, is removed itself.
type verdict struct {
	lease        trackedLease
	keep, remove []string
	whole        bool
}

func (v verdict) changes() bool { return v.whole || len(v.keep)+len(v.remove) > 0 }

// maxSettled bounds the services of a lease that one verdict changes. The next sweep changes further ones.
const maxSettled = 500

// judge returns the verdicts that change something.
func (s *sweeper) judge(r raftstore.Reader, gone []trackedLease) ([]verdict, error) {
	var verdicts []verdict
	for _, lease := range gone {
		v := verdict{lease: lease, whole: true}
		stored, _, err := Leases.Get(r, lease.id)
		if err != nil {
			return nil, err
		}
		for row, err := range leaseServices.All(r, lease.id+"/") {
			if err != nil {
				return nil, err
			}
			of := set{strings.TrimPrefix(row.Key, lease.id+"/"), lease.id}
			keeps := false
			if !row.Value.GetRemoved() {
				if keeps, err = s.keeps(r, of); err != nil {
					return nil, err
				}
			}
			switch {
			case len(v.keep)+len(v.remove) == maxSettled:
			case keeps && !isKept(stored.Value, row.Value):
				v.keep = append(v.keep, of.service)
			case !keeps && !row.Value.GetRemoved():
				v.remove = append(v.remove, of.service)
			}
			v.whole = v.whole && !keeps
		}
		if v.changes() {
			verdicts = append(verdicts, v)
		}
	}
	return verdicts, nil
}

// keeps reports whether the instances of a lost set stay. Only what is stored decides, so that every leader decides
// alike.
func (s *sweeper) keeps(r raftstore.Reader, of set) (bool, error) {
	service, err := s.catalog.Service(r, of.service)
	if err != nil {
		return false, err
	}
	leased, lost := 0, make(map[string]*preserve.Loss)
	for _, i := range service.Instances {
		if i.Lease == "" || i.Origin != "" || i.Outranked {
			continue
		}
		leased++
		if !i.LeaseExpired {
			continue
		}
		if lost[i.Lease] == nil {
			row, _, err := Leases.Get(r, i.Lease)
			if err != nil {
				return false, err
			}
			lost[i.Lease] = &preserve.Loss{Expired: row.Value.GetExpireTime().AsTime(), Kept: i.Kept}
		}
		lost[i.Lease].Instances++
	}
	losses := make([]preserve.Loss, 0, len(lost))
	for _, l := range lost {
		losses = append(losses, *l)
	}
	if lost[of.lease] == nil {
		return false, nil
	}
	return s.threshold.Keeps(*lost[of.lease], losses, leased), nil
}

// batchOf returns how many of the first verdicts fit into one transaction.
func batchOf(verdicts []verdict) int {
	rows := 0
	for n, v := range verdicts {
		if rows += 1 + len(v.keep) + len(v.remove); rows > max(sweepBatch, maxSettled+1) && n > 0 {
			return n
		}
	}
	return len(verdicts)
}

// settle carries verdicts out in one transaction, and records them in the audit log. A lease that has changed since it
// was read stays as it is.
func (s *sweeper) settle(ctx context.Context, verdicts []verdict) error {
	var events []audit.Event
	for _, v := range verdicts {
		e := audit.Event{Caller: "routing", Action: "remove lease", Object: "lease " + v.lease.id}
		e.Detail = fmt.Sprintf("it ran out %s ago", v.lease.removalDelay)
		if !v.whole {
			e.Action = "keep instances of lost lease"
			e.Detail += fmt.Sprintf("; kept in %d more services, removed in %d", len(v.keep), len(v.remove))
		}
		events = append(events, e)
	}
	return audit.DoAll(s.audit, events, func(lines []audit.Event) error {
		revision, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
			for _, v := range verdicts {
				if err := v.write(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i, v := range verdicts {
			lines[i].Revision = uint64(revision)
			for _, service := range v.keep {
				s.log.Warn("leases of a service were lost together; their instances are kept",
					"service", service, "lease", v.lease.id)
			}
		}
		s.log.Info("leases that ran out are settled", "leases", len(verdicts), "revision", revision)
		return nil
	})
}

func (v verdict) write(tx *raftstore.Tx) error {
	row, found, err := Leases.Get(tx, v.lease.id)
	if err != nil || !found || row.Revision != v.lease.revision {
		return err
	}
	if v.whole {
		return Leases.Delete(tx, v.lease.id)
	}
	for _, service := range v.keep {
		kept := &statev1.LeaseService{KeptAt: row.Value.GetExpireTime()}
		if err := leaseServices.Put(tx, set{service, v.lease.id}.leaseKey(), kept); err != nil {
			return err
		}
	}
	return removeServices(tx, row, len(v.keep), v.remove)
}

// removeServices makes a lease lose its instances in some services, while it keeps those in others. Its holder has to
// open another lease, with which it registers all of them again.
func removeServices(tx *raftstore.Tx, row raftstore.Row[*statev1.Lease], keptMore int, services []string) error {
	kept := int(row.Value.GetKept()) + keptMore
	for _, service := range services {
		key := set{service, row.Key}.leaseKey()
		was, _, err := leaseServices.Get(tx, key)
		if err != nil {
			return err
		}
		if isKept(row.Value, was.Value) {
			kept--
		}
		if err := leaseServices.Put(tx, key, &statev1.LeaseService{Removed: true}); err != nil {
			return err
		}
	}
	row.Value.Kept = uint32(max(kept, 0))
	row.Value.Ended = row.Value.GetEnded() || len(services) > 0
	return Leases.Put(tx, row.Key, row.Value)
}

// EvictInstances removes the instances of a service that are kept although their leases were lost.
func (s *Registrar) EvictInstances(
	ctx context.Context, r *ententev1.EvictInstancesRequest,
) (*ententev1.EvictInstancesResponse, error) {
	if err := plan.CheckServiceName(r.GetService()); err != nil {
		return nil, invalid(apierror.InField("service", err))
	}
	// The instances may have come to be kept at another member a moment ago.
	view, err := s.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	present, err := s.catalog.Service(view, r.GetService())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	var evicted []Instance
	evict := func(tx *raftstore.Tx) error {
		evicted = nil
		permitted, leases := make(map[string]bool), make(map[string]bool)
		for _, i := range present.Instances {
			if !i.Kept || (r.GetLease() != "" && i.Lease != r.GetLease()) {
				continue
			}
			if id := i.ID.String(); !permitted[id] {
				if err := access.PermitsInstance(ctx, tx, access.RemovesInstance, i.Service, i.ID); err != nil {
					return err
				}
				permitted[id] = true
			}
			if _, known := leases[i.Lease]; !known {
				state, err := leaseState(tx, set{i.Service, i.Lease})
				if err != nil {
					return err
				}
				leases[i.Lease] = state == setKept // its holder may have returned
			}
			if leases[i.Lease] {
				evicted = append(evicted, i)
			}
		}
		for lease, kept := range leases {
			if !kept {
				continue
			}
			row, _, err := Leases.Get(tx, lease)
			if err != nil {
				return err
			}
			if err := removeServices(tx, row, 0, []string{r.GetService()}); err != nil {
				return err
			}
		}
		return nil
	}
	var revision raftstore.Revision
	if r.GetDryRun() {
		revision, err = s.store.View().Revision(), raftstore.Try(ctx, s.store, evict)
	} else {
		revision, err = s.store.Update(ctx, evict)
	}
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if len(evicted) == 0 {
		return nil, status.Errorf(codes.NotFound,
			"service %s keeps no instance of a lost lease; 'entente service show %s' lists its instances",
			r.GetService(), r.GetService())
	}
	response := &ententev1.EvictInstancesResponse{Revision: uint64(revision), Instances: uint32(len(evicted))}
	if r.GetDryRun() {
		response.Effects = evictionEffects(evicted)
	}
	return response, nil
}

// evictionEffects describes the removal of kept instances, by lease and in order of their addresses.
func evictionEffects(evicted []Instance) (effects []*ententev1.Effect) {
	of := make(map[string][]string)
	for _, i := range evicted {
		of[i.Lease] = append(of[i.Lease], i.Address.String())
	}
	for _, lease := range slices.Sorted(maps.Keys(of)) {
		effects = append(effects, &ententev1.Effect{
			Kind: "instances", Subject: fmt.Sprintf("%d of %s", len(of[lease]), evicted[0].Service),
			Detail: fmt.Sprintf("%s are removed; the holder of their lease %s registers them again if it returns",
				some(of[lease]), lease),
		})
	}
	return effects
}

// some names the first few of many things.
func some(names []string) string {
	const most = 4
	if extra := len(names) - most; extra > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), extra)
	}
	return strings.Join(names, ", ")
}
