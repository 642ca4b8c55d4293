package registry

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
	"github.com/ententehq/entente/routing/plan"
)

// The bounds of what can be registered. They are checked outside of the transaction, so that registrations do not
// conflict with each other. A few instances can exceed them, for which the bound of weights leaves room.
const (
	// MaxInstances bounds the instances of a service.
	MaxInstances = 4000
	maxServices  = 10000
	maxTotal     = 200000
)

// Registrar serves the registration of single instances and the queries for services. Whether the caller may register a
// SPIFFE ID is decided before a call arrives; what depends on stored instances, and on the owners of the service, is
// checked with [access.PermitsInstance] within the transaction.
type Registrar struct {
	store   *raftstore.Store
	catalog *Catalog
	scope   func(context.Context) access.Scope
	now     func() time.Time
}

// RegisterInstance creates or replaces an instance. It replaces the instance at the same address, unless another lease
// holds that: then the caller has to take it over, and the holder is notified.
func (s *Registrar) RegisterInstance(
	ctx context.Context, r *ententev1.RegisterInstanceRequest,
) (*ententev1.Instance, error) {
	wanted, err := ParseInstance(r.GetInstance())
	if err != nil {
		return nil, invalid(err)
	}
	view := s.store.View()
	present, err := s.catalog.Service(view, wanted.Service)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	others := registeredAt(present, wanted.Address)
	if repeat.Earlier(ctx) != nil {
		return registeredEarlier(wanted, others)
	}
	if len(others) == 0 {
		if err := s.catalog.checkQuota(view, map[string]int{wanted.Service: 1}); err != nil {
			return nil, err
		}
	}
	var written Instance
	var key string
	revision, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
		written = wanted
		written.Registered = s.now()
		if r.GetInstance().GetLease() != "" {
			lease, err := ownedLease(tx, r.GetInstance().GetLease(), access.CallerFrom(ctx))
			if err != nil {
				return err
			}
			written.Lease = lease.Key
		}
		if err := checkEtag(tx, r.GetEtag(), written, others); err != nil {
			return err
		}
		for _, other := range others {
			if other.Lease == written.Lease {
				continue
			}
			stored, err := remove(ctx, tx, other)
			if err != nil {
				return err
			}
			if stored == nil {
				continue
			}
			if err := s.handOver(ctx, tx, *stored, written, r.GetTakeOver()); err != nil {
				return err
			}
		}
		err := regained(tx, written.Lease, func(service, address string) bool {
			return service == written.Service && address == written.Address.String()
		})
		if err != nil {
			return err
		}
		key, err = put(ctx, tx, &written)
		return err
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	// A registration that changes nothing writes nothing, and keeps its revision.
	written.Revision = revision
	if row, found, err := Instances.Get(s.store.View(), key); err == nil && found {
		written.Revision = row.Revision
	}
	return written.Proto(), nil
}

// registeredEarlier returns the instance that an earlier call with the same request id has registered, as it is now.
func registeredEarlier(wanted Instance, present []Instance) (*ententev1.Instance, error) {
	for _, i := range present {
		if i.ID == wanted.ID {
			return i.Proto(), nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "the instance of %s at %s was deregistered", wanted.Service,
		wanted.Address)
}

// put writes an instance into the generation of its set that counts, and returns the key of its row. An equal instance
// keeps its time of registration.
func put(ctx context.Context, tx *raftstore.Tx, i *Instance) (key string, err error) {
	if err := access.PermitsInstance(ctx, tx, access.RegistersInstance, i.Service, i.ID); err != nil {
		return "", err
	}
	into := set{i.Service, i.Lease}
	generation, err := into.generation(tx)
	if err != nil {
		return "", err
	}
	key = into.in(generation) + i.Address.String()
	row, found, err := Instances.Get(tx, key)
	if err != nil {
		return "", err
	}
	if found {
		old, err := fromRow(row)
		if err != nil {
			return "", err
		}
		if err := access.PermitsInstance(ctx, tx, access.RemovesInstance, i.Service, old.ID); err != nil {
			return "", err
		}
		if old.sameAs(*i) {
			i.Registered, i.generation = old.Registered, old.generation
		} else {
			i.generation = raftstore.NextGeneration(tx, old.generation)
		}
	} else {
		i.generation = raftstore.NextGeneration(tx, 0)
	}
	if err := into.index(tx); err != nil {
		return "", err
	}
	return key, Instances.Put(tx, key, i.Row())
}

// checkEtag returns an error if none of the instances at an address has the etag of a request. i is the one under the
// caller's lease, others those that were there before the transaction.
func checkEtag(tx *raftstore.Tx, requested string, i Instance, others []Instance) error {
	if requested == "" {
		return nil
	}
	var present []string
	for _, at := range append([]Instance{i}, others...) {
		of := set{at.Service, at.Lease}
		generation, err := of.generation(tx)
		if err != nil {
			return err
		}
		row, found, err := Instances.Get(tx, of.in(generation)+at.Address.String())
		if err != nil {
			return err
		}
		if found {
			present = append(present, etag.Of(row.Value.GetGeneration()))
		}
	}
	return etag.Check(requested, "the instance of "+i.Service+" at "+i.Address.String(), present...)
}

// registeredAt returns the instances of a service that are registered at an address, those that do not count because of
// their IDs included. Imported instances are not registered here, and yield to those that are.
func registeredAt(s *Service, address netip.AddrPort) []Instance {
	var registered []Instance
	for _, i := range slices.Concat(s.Instances, s.disowned) {
		if i.Address == address && i.Origin == "" {
			registered = append(registered, i)
		}
	}
	return registered
}

// remove deletes an instance, if the caller is permitted to. It returns what was stored, or nil.
func remove(ctx context.Context, tx *raftstore.Tx, i Instance) (*Instance, error) {
	of := set{i.Service, i.Lease}
	generation, err := of.generation(tx)
	if err != nil {
		return nil, err
	}
	key := of.in(generation) + i.Address.String()
	row, found, err := Instances.Get(tx, key)
	if err != nil || !found {
		return nil, err
	}
	stored, err := fromRow(row)
	if err != nil {
		return nil, err
	}
	if err := access.PermitsInstance(ctx, tx, access.RemovesInstance, i.Service, stored.ID); err != nil {
		return nil, err
	}
	return &stored, Instances.Delete(tx, key)
}

// DeregisterInstance removes an instance.
func (s *Registrar) DeregisterInstance(
	ctx context.Context, r *ententev1.DeregisterInstanceRequest,
) (*ententev1.DeregisterInstanceResponse, error) {
	if err := plan.CheckServiceName(r.GetService()); err != nil {
		return nil, invalid(apierror.InField("service", err))
	}
	address, err := plan.ParseAddress(r.GetAddress())
	if err != nil {
		return nil, invalid(apierror.InField("address", err))
	}
	for {
		found, err := s.registered(ctx, r.GetService(), address)
		if err != nil {
			return nil, err
		}
		removed := false
		deregister := func(tx *raftstore.Tx) error {
			removed = false
			if err := checkEtag(tx, r.GetEtag(), found[0], found); err != nil {
				return err
			}
			for _, i := range found {
				stored, err := remove(ctx, tx, i)
				if err != nil {
					return err
				}
				if stored == nil {
					continue
				}
				removed = true
				if err := s.removed(ctx, tx, *stored); err != nil {
					return err
				}
			}
			return nil
		}
		if r.GetDryRun() {
			if err := raftstore.Try(ctx, s.store, deregister); err != nil {
				return nil, raftstore.StatusError(err)
			}
			return s.deregistrationEffects(found)
		}
		revision, err := s.store.Update(ctx, deregister)
		switch {
		case err != nil:
			return nil, raftstore.StatusError(err)
		case removed:
			return &ententev1.DeregisterInstanceResponse{Revision: uint64(revision)}, nil
		}
		// Another call has removed or replaced it meanwhile.
	}
}

// deregistrationEffects returns what the removal of the instances at one address does.
func (s *Registrar) deregistrationEffects(found []Instance) (*ententev1.DeregisterInstanceResponse, error) {
	view := s.store.View()
	present, err := s.catalog.Service(view, found[0].Service)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	others := 0
	for _, i := range present.Instances {
		if i.Address != found[0].Address {
			others++
		}
	}
	response := &ententev1.DeregisterInstanceResponse{Revision: uint64(view.Revision())}
	for _, i := range found {
		detail := fmt.Sprintf("gets no new connections; %d other instances of the service stay", others)
		if i.Lease != "" {
			detail += "; the holder of its lease " + i.Lease + " is notified, unless that is the caller"
		}
		response.Effects = append(response.Effects, &ententev1.Effect{
			Kind: "instances", Subject: fmt.Sprintf("%s at %s", i.Service, i.Address), Detail: detail,
		})
	}
	return response, nil
}

// registered returns the instances at an address, of which there is at least one. It may have been registered at
// another member a moment ago.
func (s *Registrar) registered(ctx context.Context, service string, address netip.AddrPort) ([]Instance, error) {
	view, err := s.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	present, err := s.catalog.Service(view, service)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if found := registeredAt(present, address); len(found) > 0 {
		return found, nil
	}
	for _, i := range present.Instances {
		if i.Address == address {
			return nil, status.Errorf(codes.FailedPrecondition, "the instance of %s at %s is imported from %s, where "+
				"it is registered; 'entente service unimport %s --from %s' ends the import",
				i.Service, address, i.Origin, i.Service, i.Origin)
		}
	}
	return nil, status.Errorf(codes.NotFound,
		"service %s has no instance at %s; 'entente service show %s' lists the addresses of its instances",
		service, address, service)
}

// checkQuota returns an error if that many more instances of some services cannot be registered.
func (c *Catalog) checkQuota(r raftstore.Reader, more map[string]int) error {
	all, err := c.Counts(r)
	if err != nil {
		return raftstore.StatusError(err)
	}
	total, services := all.Instances, len(all.Services)
	for service, n := range more {
		if n <= 0 {
			continue
		}
		present := all.Services[service]
		if present+n > MaxInstances {
			return status.Errorf(
				codes.ResourceExhausted,
				"service %s has %d instances, and %d more would exceed the limit of %d; deregister "+
					"some, or split it into two services",
				service,
				present,
				n,
				MaxInstances,
			)
		}
		if present == 0 {
			services++
		}
		total += n
	}
	switch {
	case services > maxServices:
		return status.Errorf(codes.ResourceExhausted,
			"there would be %d services, and %d are allowed; deregister the instances of some", services, maxServices)
	case total > maxTotal:
		return status.Errorf(codes.ResourceExhausted,
			"there would be %d instances, and %d are allowed in total; deregister some", total, maxTotal)
	}
	return nil
}

// ListServices returns all services that have an instance which the caller sees, with these instances. Those that do
// not count are marked as disowned.
func (s *Registrar) ListServices(
	ctx context.Context, r *ententev1.ListServicesRequest,
) (*ententev1.ListServicesResponse, error) {
	view, err := Read(ctx, s.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	list, err := decode(view, "")
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	response := &ententev1.ListServicesResponse{Revision: uint64(view.Revision())}
	byName, scope := make(map[string]*ententev1.Service), s.scope(ctx)
	for _, i := range list {
		if !scope.Includes(i.ID.TrustDomain()) {
			continue
		}
		service := byName[i.Service]
		if service == nil {
			etag, err := set{service: i.Service}.etag(view)
			if err != nil {
				return nil, raftstore.StatusError(err)
			}
			service = &ententev1.Service{
				Name: i.Service, Revision: uint64(serviceRevision(view, i.Service)), Etag: etag,
			}
			byName[i.Service] = service
			response.Services = append(response.Services, service)
		}
		service.Instances = append(service.Instances, i.Proto())
	}
	return response, nil
}

// GetService returns one service with the instances that the caller sees. Those that do not count are marked as
// disowned, and come last. A service without any does not exist for the caller.
func (s *Registrar) GetService(ctx context.Context, r *ententev1.GetServiceRequest) (*ententev1.Service, error) {
	if err := plan.CheckServiceName(r.GetName()); err != nil {
		return nil, invalid(apierror.InField("name", err))
	}
	view, err := Read(ctx, s.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	present, err := s.catalog.Service(view, r.GetName())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	etag, err := set{service: r.GetName()}.etag(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	service := &ententev1.Service{
		Name: r.GetName(), Revision: uint64(serviceRevision(view, r.GetName())), Etag: etag,
	}
	scope := s.scope(ctx)
	for _, i := range slices.Concat(present.Instances, present.disowned) {
		if scope.Includes(i.ID.TrustDomain()) {
			service.Instances = append(service.Instances, i.Proto())
		}
	}
	if len(service.GetInstances()) == 0 {
		return nil, status.Errorf(codes.NotFound,
			"service %s has no instance; register one with: entente service register %s …", r.GetName(), r.GetName())
	}
	return service, nil
}
