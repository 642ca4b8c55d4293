package routing

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// The bounds of what can be registered. They are checked outside of the transaction, so that registrations do not wait for each
// other; a few can slip past, for which the bound on weights leaves room.
const (
	// maxInstances is how many instances a service can have.
	maxInstances = 4000
	maxServices  = 10000
	maxTotal     = 200000
)

// Server serves ententev1.RoutingService. Who may register which SPIFFE ID has been decided before a call gets here;
// what the decision needs from within a transaction is asked there.
type Server struct {
	ententev1.UnimplementedRoutingServiceServer
	m *Manager
}

// NewServer serves a manager.
func NewServer(m *Manager) *Server { return &Server{m: m} }

// RegisterInstance creates or replaces an instance. One at the same address is replaced whatever lease it has: the newest
// registration is the one that stands.
func (s *Server) RegisterInstance(ctx context.Context, r *ententev1.RegisterInstanceRequest) (*ententev1.Instance, error) {
	wanted, err := ParseInstance(r.GetInstance())
	if err != nil {
		return nil, invalid(err)
	}
	view := s.m.store.View()
	present, err := s.m.catalog.service(view, wanted.Service)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	others := standingAt(present.instances, wanted)
	if len(others) == 0 {
		if err := s.m.room(view, map[string]int{wanted.Service: 1}); err != nil {
			return nil, err
		}
	}
	var written Instance
	var key string
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		written = wanted
		written.Registered = s.m.now()
		if r.GetInstance().GetLease() != "" {
			lease, err := holdable(tx, r.GetInstance().GetLease(), access.CallerFrom(ctx))
			if err != nil {
				return err
			}
			written.Lease = lease.Key
		}
		into := set{written.Service, written.Lease}
		for _, other := range others {
			if other.Lease == written.Lease {
				continue
			}
			if err := remove(ctx, tx, set{other.Service, other.Lease}, other.Address.String()); err != nil {
				return err
			}
		}
		generation, err := into.generation(tx)
		if err != nil {
			return err
		}
		key = into.in(generation) + written.Address.String()
		row, found, err := Instances.Get(tx, key)
		if err != nil {
			return err
		}
		if found {
			old, err := fromRow(row)
			if err != nil {
				return err
			}
			if err := access.Permits(ctx, old.ID); err != nil {
				return err
			}
			if old.sameAs(written) {
				written.Registered = old.Registered
			}
		}
		if err := into.index(tx); err != nil {
			return err
		}
		return Instances.Put(tx, key, written.Row())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	// A registration that changed nothing wrote nothing, and keeps the revision that it has.
	written.Revision = revision
	if row, found, err := Instances.Get(s.m.store.View(), key); err == nil && found {
		written.Revision = row.Revision
	}
	return written.Proto(), nil
}

// standingAt returns the instances that stand where the wanted one is to stand. What was imported is not registered here, and
// stands back behind what is.
func standingAt(list []Instance, wanted Instance) []Instance {
	var out []Instance
	for _, i := range list {
		if i.Address == wanted.Address && i.Origin == "" {
			out = append(out, i)
		}
	}
	return out
}

// remove deletes an instance, if it is there and the caller may.
func remove(ctx context.Context, tx *raftstore.Tx, of set, address string) error {
	generation, err := of.generation(tx)
	if err != nil {
		return err
	}
	key := of.in(generation) + address
	row, found, err := Instances.Get(tx, key)
	if err != nil || !found {
		return err
	}
	i, err := fromRow(row)
	if err != nil {
		return err
	}
	if err := access.Permits(ctx, i.ID); err != nil {
		return err
	}
	return Instances.Delete(tx, key)
}

// DeregisterInstance removes an instance.
func (s *Server) DeregisterInstance(ctx context.Context, r *ententev1.DeregisterInstanceRequest) (*ententev1.DeregisterInstanceResponse, error) {
	if err := plan.CheckServiceName(r.GetService()); err != nil {
		return nil, invalid(err)
	}
	address, err := plan.ParseAddress(r.GetAddress())
	if err != nil {
		return nil, invalid(err)
	}
	// The registration may have been at another member a moment ago.
	view, err := s.m.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	present, err := s.m.catalog.service(view, r.GetService())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	found := standingAt(present.instances, Instance{Endpoint: plan.Endpoint{Address: address}})
	if len(found) == 0 {
		for _, i := range present.instances {
			if i.Address == address {
				return nil, status.Errorf(codes.FailedPrecondition, "the instance of %s at %s is imported from %s, where it is registered; 'entente service unimport %s --from %s' ends the import", i.Service, address, i.Origin, i.Service, i.Origin)
			}
		}
		return nil, status.Errorf(codes.NotFound, "service %s has no instance at %s; it is gone already, or 'entente service show %s' names its address", r.GetService(), address, r.GetService())
	}
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, i := range found {
			if err := remove(ctx, tx, set{i.Service, i.Lease}, i.Address.String()); err != nil {
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

// room says whether so many more instances of some services can be registered.
func (m *Manager) room(r raftstore.Reader, more map[string]int) error {
	all, err := m.counts.of(r, m.now())
	if err != nil {
		return raftstore.StatusError(err)
	}
	total, services := all.instances, len(all.services)
	for service, n := range more {
		if n <= 0 {
			continue
		}
		present := all.services[service]
		if present+n > maxInstances {
			return status.Errorf(codes.ResourceExhausted, "service %s has %d instances, and %d more would pass the most, %d; deregister some, or split it into two services", service, present, n, maxInstances)
		}
		if present == 0 {
			services++
		}
		total += n
	}
	switch {
	case services > maxServices:
		return status.Errorf(codes.ResourceExhausted, "there would be %d services, and %d are allowed; deregister the instances of some", services, maxServices)
	case total > maxTotal:
		return status.Errorf(codes.ResourceExhausted, "there would be %d instances, and %d are allowed in all; deregister some", total, maxTotal)
	}
	return nil
}

// invalid turns what a parser said into the answer to a call.
func invalid(err error) error {
	for _, known := range []error{plan.ErrServiceName, plan.ErrAddress, plan.ErrLocality, ErrInstance, ErrLease, plan.ErrRule, plan.ErrScenario, ErrExport, bundle.ErrID} {
		if errors.Is(err, known) {
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
	return status.Errorf(codes.InvalidArgument, "the request cannot be read: %v", err)
}
