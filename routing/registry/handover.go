package registry

import (
	"context"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// maxLost bounds what a lease records of its losses; the oldest are dropped.
const maxLost = 100

// handOver decides whether an instance, which the transaction has deleted, may give way to a registration under another
// lease, or under none, and records the loss in its lease.
func (s *Registrar) handOver(ctx context.Context, tx *raftstore.Tx, i, to Instance, takeOver bool) error {
	if i.Lease == "" {
		return nil
	}
	state, err := leaseState(tx, set{i.Service, i.Lease})
	switch {
	case err != nil:
		return err
	case state == setHeld && !takeOver:
		return s.heldElsewhere(ctx, tx, i)
	}
	return s.lose(ctx, tx, i, &statev1.LostInstance{Lease: to.Lease, TrustDomain: to.ID.TrustDomain().Name()})
}

// removed records in the lease of an instance, which the transaction has deleted, that another caller removed it. All
// callers of the admin socket are one owner, so that each of its removals counts as that of another.
func (s *Registrar) removed(ctx context.Context, tx *raftstore.Tx, i Instance) error {
	caller := access.CallerFrom(ctx)
	lease, found, err := Leases.Get(tx, i.Lease)
	if err != nil || !found || (caller.Kind() != access.Socket && lease.Value.GetOwner() == ownerOf(caller)) {
		return err
	}
	return s.lose(ctx, tx, i, &statev1.LostInstance{Removed: true, TrustDomain: i.ID.TrustDomain().Name()})
}

// heldElsewhere refuses a registration because another lease holds the address. It names the holder if the caller sees
// the instance.
func (s *Registrar) heldElsewhere(ctx context.Context, r raftstore.Reader, i Instance) error {
	holder := "another lease"
	lease, _, err := Leases.Get(r, i.Lease)
	if err != nil {
		return err
	}
	owner := lease.Value.GetOwner()
	if owner == ownerOf(access.CallerFrom(ctx)) || s.scope(ctx).Includes(i.ID.TrustDomain()) {
		holder = "the lease " + i.Lease + " of " + owner
	}
	return status.Errorf(codes.FailedPrecondition,
		"%s holds the instance of %s at %s and renews it: end that holder, wait until its lease has run out, "+
			"or take the address from it with take_over", holder, i.Service, i.Address)
}

// lose adds a loss to the lease of an instance.
func (s *Registrar) lose(ctx context.Context, tx *raftstore.Tx, i Instance, lost *statev1.LostInstance) error {
	lease, found, err := Leases.Get(tx, i.Lease)
	if err != nil || !found {
		return err
	}
	lost.Service, lost.Address = i.Service, i.Address.String()
	lost.LoseTime, lost.By = timestamppb.New(s.now()), ownerOf(access.CallerFrom(ctx))
	list := append(withoutLost(lease.Value.GetLost(), func(service, address string) bool {
		return service == lost.GetService() && address == lost.GetAddress()
	}), lost)
	lease.Value.Lost = list[max(0, len(list)-maxLost):]
	return Leases.Put(tx, i.Lease, lease.Value)
}

// regained removes instances that are registered under a lease from what the lease has lost.
func regained(tx *raftstore.Tx, lease string, has func(service, address string) bool) error {
	if lease == "" {
		return nil
	}
	row, found, err := Leases.Get(tx, lease)
	if err != nil || !found {
		return err
	}
	list := withoutLost(row.Value.GetLost(), has)
	if len(list) == len(row.Value.GetLost()) {
		return nil
	}
	row.Value.Lost = list
	return Leases.Put(tx, lease, row.Value)
}

func withoutLost(list []*statev1.LostInstance, has func(service, address string) bool) []*statev1.LostInstance {
	return slices.DeleteFunc(slices.Clone(list), func(l *statev1.LostInstance) bool {
		return has(l.GetService(), l.GetAddress())
	})
}

// lostProto returns the message of the API. A reader sees who took an instance if it sees the trust domain of
// what is there now.
func lostProto(list []*statev1.LostInstance, scope access.Scope) []*ententev1.LostInstance {
	var out []*ententev1.LostInstance
	for _, l := range list {
		m := &ententev1.LostInstance{
			Service: l.GetService(), Address: l.GetAddress(), LoseTime: l.GetLoseTime(), Removed: l.GetRemoved(),
		}
		if td, err := spiffeid.TrustDomainFromString(l.GetTrustDomain()); err == nil && scope.Includes(td) {
			m.By, m.Lease = l.GetBy(), l.GetLease()
		}
		out = append(out, m)
	}
	return out
}
