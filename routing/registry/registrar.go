package registry

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
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
// SPIFFE ID is decided before a call arrives; what depends on stored instances is checked with [access.Permits] within
// the transaction.
type Registrar struct {
	store   *raftstore.Store
	catalog *Catalog
	now     func() time.Time
}

// RegisterInstance creates or replaces an instance. It replaces the instance at the same address, whatever lease that
// has: the newest registration counts.
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
	others := registeredAt(present.Instances, wanted)
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
		for _, other := range others {
			if other.Lease == written.Lease {
				continue
			}
			if err := remove(ctx, tx, other); err != nil {
				return err
			}
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

// put writes an instance into the generation of its set that counts, and returns the key of its row. An equal instance
// keeps its time of registration.
func put(ctx context.Context, tx *raftstore.Tx, i *Instance) (key string, err error) {
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
		if err := access.Permits(ctx, old.ID); err != nil {
			return "", err
		}
		if old.sameAs(*i) {
			i.Registered = old.Registered
		}
	}
	if err := into.index(tx); err != nil {
		return "", err
	}
	return key, Instances.Put(tx, key, i.Row())
}

// registeredAt returns the instances that are registered at the address of the wanted one. Imported instances are not
// registered here, and yield to those that are.
func registeredAt(list []Instance, wanted Instance) []Instance {
	var registered []Instance
	for _, i := range list {
		if i.Address == wanted.Address && i.Origin == "" {
			registered = append(registered, i)
		}
	}
	return registered
}

// remove deletes an instance, if it is stored and the caller is permitted to.
func remove(ctx context.Context, tx *raftstore.Tx, i Instance) error {
	of := set{i.Service, i.Lease}
	generation, err := of.generation(tx)
	if err != nil {
		return err
	}
	key := of.in(generation) + i.Address.String()
	row, found, err := Instances.Get(tx, key)
	if err != nil || !found {
		return err
	}
	stored, err := fromRow(row)
	if err != nil {
		return err
	}
	if err := access.Permits(ctx, stored.ID); err != nil {
		return err
	}
	return Instances.Delete(tx, key)
}

// DeregisterInstance removes an instance.
func (s *Registrar) DeregisterInstance(
	ctx context.Context, r *ententev1.DeregisterInstanceRequest,
) (*ententev1.DeregisterInstanceResponse, error) {
	if err := plan.CheckServiceName(r.GetService()); err != nil {
		return nil, invalid(err)
	}
	address, err := plan.ParseAddress(r.GetAddress())
	if err != nil {
		return nil, invalid(err)
	}
	// The instance may have been registered at another member a moment ago.
	view, err := s.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	present, err := s.catalog.Service(view, r.GetService())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	found := registeredAt(present.Instances, Instance{Endpoint: plan.Endpoint{Address: address}})
	if len(found) == 0 {
		for _, i := range present.Instances {
			if i.Address == address {
				return nil, status.Errorf(
					codes.FailedPrecondition,
					"the instance of %s at %s is imported from %s, where it is registered; 'entente "+
						"service unimport %s --from %s' ends the import",
					i.Service,
					address,
					i.Origin,
					i.Service,
					i.Origin,
				)
			}
		}
		return nil, status.Errorf(codes.NotFound,
			"service %s has no instance at %s; 'entente service show %s' lists the addresses of its instances",
			r.GetService(), address, r.GetService())
	}
	revision, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, i := range found {
			if err := remove(ctx, tx, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.DeregisterInstanceResponse{Revision: uint64(revision)}, nil
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

// ListServices returns all services with their instances.
func (s *Registrar) ListServices(
	ctx context.Context, r *ententev1.ListServicesRequest,
) (*ententev1.ListServicesResponse, error) {
	view, err := Read(ctx, s.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	list, err := List(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	response := &ententev1.ListServicesResponse{Revision: uint64(view.Revision())}
	byName := make(map[string]*ententev1.Service)
	for _, i := range list {
		service := byName[i.Service]
		if service == nil {
			service = &ententev1.Service{Name: i.Service, Revision: uint64(serviceRevision(view, i.Service))}
			byName[i.Service] = service
			response.Services = append(response.Services, service)
		}
		service.Instances = append(service.Instances, i.Proto())
	}
	return response, nil
}

// GetService returns one service with its instances.
func (s *Registrar) GetService(ctx context.Context, r *ententev1.GetServiceRequest) (*ententev1.Service, error) {
	if err := plan.CheckServiceName(r.GetName()); err != nil {
		return nil, invalid(err)
	}
	view, err := Read(ctx, s.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	present, err := s.catalog.Service(view, r.GetName())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if len(present.Instances) == 0 {
		return nil, status.Errorf(codes.NotFound,
			"service %s has no instance; register one with: entente service register %s …", r.GetName(), r.GetName())
	}
	service := &ententev1.Service{Name: r.GetName(), Revision: uint64(serviceRevision(view, r.GetName()))}
	for _, i := range present.Instances {
		service.Instances = append(service.Instances, i.Proto())
	}
	return service, nil
}
