package routing

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

// maxInstances is how many instances a service can have. It is checked outside of the transaction, so that registrations
// of one service do not wait for each other; a few can slip past it, for which the bound on weights leaves room.
const maxInstances = 2048

var (
	errNoInstance = errors.New("there is no such instance; register it")
	errGone       = errors.New("there is no such instance; it is gone already, or 'entente service show' names its address")
	errReplaced   = errors.New("the registration was replaced by a newer one; register again if this instance is the one that should stand")
	errNoLease    = errors.New("the instance has no lease to renew; register it again to change it")
)

// Server serves ententev1.RoutingService. Who may register which SPIFFE ID has been decided before a call gets here;
// what the decision needs from within a transaction is asked there.
type Server struct {
	ententev1.UnimplementedRoutingServiceServer
	m *Manager
}

// NewServer serves a manager.
func NewServer(m *Manager) *Server { return &Server{m: m} }

// RegisterInstance creates or replaces an instance. Each registration with a lease has a name of its own, so that what
// renews a replaced one is told so.
func (s *Server) RegisterInstance(ctx context.Context, r *ententev1.RegisterInstanceRequest) (*ententev1.Instance, error) {
	wanted, err := ParseInstance(r.GetInstance())
	if err != nil {
		return nil, invalid(err)
	}
	present, err := s.m.catalog.instances(s.m.store.View(), wanted.Service)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if len(present) >= maxInstances && !holds(present, wanted) {
		return nil, status.Errorf(codes.ResourceExhausted, "service %s has %d instances, which is the most; deregister some, or split it into two services", wanted.Service, len(present))
	}
	fresh := newLease()
	var written Instance
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		written = wanted
		written.Registered = s.m.now()
		old, found, err := lookUp(tx, wanted.Service, wanted.Address.String())
		if err != nil {
			return err
		}
		if found {
			if err := access.Permits(ctx, old.ID); err != nil {
				return err
			}
		}
		switch {
		case wanted.Lease == "" && wanted.TTL > 0:
			written.Lease = fresh
		case wanted.Lease == "":
		case !found:
			return refuse(codes.NotFound, errNoInstance, wanted.Key())
		case old.Lease != wanted.Lease:
			return refuse(codes.FailedPrecondition, errReplaced, wanted.Key())
		case wanted.TTL == 0:
			written.Lease = ""
		default:
			written.Registered = old.Registered
		}
		return Instances.Put(tx, written.Key(), written.Row())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if written.Lease != "" {
		s.m.renewals.renew(written.Lease, written.TTL, s.m.now())
	}
	// A registration that changed nothing wrote nothing, and keeps the revision that it has.
	if stored, found, err := lookUp(s.m.store.View(), written.Service, written.Address.String()); err == nil && found && stored.Lease == written.Lease {
		return stored.Proto(), nil
	}
	written.Revision = revision
	return written.Proto(), nil
}

// RenewInstance keeps a lease alive. Only a change of health is written; the renewal itself goes to the leader's memory
// with the next heartbeat. The lease's name, which nobody is shown but who registered, is the right to do this.
func (s *Server) RenewInstance(ctx context.Context, r *ententev1.RenewInstanceRequest) (*ententev1.RenewInstanceResponse, error) {
	answer, err := s.renew(ctx, r)
	if err != nil {
		s.m.metrics.renewals.WithLabelValues(renewalRefused).Inc()
		return nil, raftstore.StatusError(err)
	}
	s.m.metrics.renewals.WithLabelValues(renewalTaken).Inc()
	return answer, nil
}

func (s *Server) renew(ctx context.Context, r *ententev1.RenewInstanceRequest) (*ententev1.RenewInstanceResponse, error) {
	key, err := parseKey(r.GetService(), r.GetAddress())
	if err != nil {
		return nil, err
	}
	lease, err := leaseBytes(r.GetLeaseId())
	if err == nil && lease == nil {
		err = fmt.Errorf("%w: lease_id is empty; send the one that registration returned", ErrInstance)
	}
	if err != nil {
		return nil, invalid(err)
	}
	health, err := healthFrom(r.GetHealth(), 0)
	if err != nil {
		return nil, invalid(err)
	}
	view := s.m.store.View()
	i, err := leased(view, key, r.GetLeaseId())
	if err != nil {
		// This member may not have caught up with a registration at another one.
		if view, err = s.m.store.Read(ctx, raftstore.ReadOptions{Linearizable: true}); err != nil {
			return nil, err
		}
		if i, err = leased(view, key, r.GetLeaseId()); err != nil {
			return nil, err
		}
	}
	if silent := s.m.now().Sub(s.m.lastHeard()); silent > i.TTL/2 {
		return nil, status.Errorf(codes.Unavailable, "this member has not heard from the leader for %s and could not pass the renewal on; renew at another member", silent.Round(time.Millisecond))
	}
	if health != 0 && health != i.Health {
		_, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
			i, err := leased(tx, key, r.GetLeaseId())
			if err != nil {
				return err
			}
			i.Health = health
			return Instances.Put(tx, i.Key(), i.Row())
		})
		if err != nil {
			return nil, err
		}
	}
	s.m.renewals.renew(i.Lease, i.TTL, s.m.now())
	return &ententev1.RenewInstanceResponse{Ttl: durationpb.New(i.TTL)}, nil
}

// DeregisterInstance removes an instance.
func (s *Server) DeregisterInstance(ctx context.Context, r *ententev1.DeregisterInstanceRequest) (*ententev1.DeregisterInstanceResponse, error) {
	key, err := parseKey(r.GetService(), r.GetAddress())
	if err != nil {
		return nil, err
	}
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		i, found, err := lookUp(tx, key.service, key.address)
		if err != nil {
			return err
		}
		if !found {
			return refuse(codes.NotFound, errGone, key.String())
		}
		if err := access.Permits(ctx, i.ID); err != nil {
			return err
		}
		return Instances.Delete(tx, key.String())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.DeregisterInstanceResponse{Revision: uint64(revision)}, nil
}

// instanceName is what a request names an instance by, checked.
type instanceName struct{ service, address string }

func (n instanceName) String() string { return instanceKey(n.service, n.address) }

func parseKey(service, address string) (instanceName, error) {
	if err := CheckServiceName(service); err != nil {
		return instanceName{}, invalid(err)
	}
	a, err := ParseAddress(address)
	if err != nil {
		return instanceName{}, invalid(err)
	}
	return instanceName{service: service, address: a.String()}, nil
}

func lookUp(r raftstore.Reader, service, address string) (Instance, bool, error) {
	row, found, err := Instances.Get(r, instanceKey(service, address))
	if err != nil || !found {
		return Instance{}, false, err
	}
	i, err := fromRow(row)
	return i, err == nil, err
}

// leased returns the instance if the lease is its present one.
func leased(r raftstore.Reader, name instanceName, lease string) (Instance, error) {
	i, found, err := lookUp(r, name.service, name.address)
	switch {
	case err != nil:
		return Instance{}, err
	case !found:
		return Instance{}, refuse(codes.NotFound, errNoInstance, name.String())
	case i.Lease == "":
		return Instance{}, refuse(codes.FailedPrecondition, errNoLease, name.String())
	case i.Lease != lease:
		return Instance{}, refuse(codes.FailedPrecondition, errReplaced, name.String())
	}
	return i, nil
}

func holds(list []Instance, wanted Instance) bool {
	for _, i := range list {
		if i.Address == wanted.Address {
			return true
		}
	}
	return false
}

func newLease() string {
	b := make([]byte, leaseSize)
	// crypto/rand never fails: it ends the process rather than return what is not random.
	_, _ = rand.Read(b)
	return leaseText(b)
}

// invalid turns what a parser said into the answer to a call.
func invalid(err error) error {
	if errors.Is(err, ErrServiceName) || errors.Is(err, ErrAddress) || errors.Is(err, ErrLocality) || errors.Is(err, ErrInstance) || errors.Is(err, bundle.ErrID) {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return status.Errorf(codes.InvalidArgument, "the request cannot be read: %v", err)
}

func refuse(code codes.Code, err error, key string) error {
	return status.Errorf(code, "instance %s: %v", key, err)
}
