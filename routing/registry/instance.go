package registry

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// errInstance is returned for an instance that cannot be registered.
var errInstance = errors.New("not an instance")

// ErrReserved is the error for a SPIFFE ID that only members have.
var ErrReserved = fmt.Errorf("%w", errInstance)

// Instance is a registered endpoint of a service. Its Endpoint has no trust state, which is looked up for each plan.
type Instance struct {
	Service string
	// Endpoint has the health that counts, which is unhealthy once the lease has run out.
	plan.Endpoint
	// Reported is the health that was registered.
	Reported plan.Health
	// Lease is the ID of the lease that keeps the instance. Without a lease the instance stays until it is
	// deregistered. An imported instance has "@<trust domain>" here.
	Lease      string
	Registered time.Time
	Revision   raftstore.Revision
	// generation is the number in the etag.
	generation uint64
	// disowned is set if the service has owners and none covers the ID: the instance does not count.
	disowned bool
}

// Key returns the key of the instance's row, as long as its set is in its first generation.
func (i Instance) Key() string {
	return set{i.Service, i.Lease}.in(firstGeneration) + i.Address.String()
}

// ParseInstance parses and checks a registration. Fields that the server sets, and the lease, are ignored.
func ParseInstance(m *ententev1.Instance) (Instance, error) {
	var i Instance
	if m == nil {
		return i, apierror.InField("instance", fmt.Errorf("%w: it is missing", errInstance))
	}
	if err := plan.CheckServiceName(m.GetService()); err != nil {
		return i, apierror.InField("service", err)
	}
	address, err := plan.ParseAddress(m.GetAddress())
	if err != nil {
		return i, apierror.InField("address", err)
	}
	locality, err := plan.LocalityFromProto(m.GetLocality())
	if err != nil {
		return i, apierror.InField("locality", err)
	}
	if locality.Zone == "" {
		return i, apierror.InField("locality.zone", fmt.Errorf(
			"%w: %q: an instance runs in a zone; write REGION/ZONE or REGION/ZONE/SUB-ZONE",
			plan.ErrLocality, locality,
		))
	}
	id, err := bundle.ParseID(m.GetSpiffeId())
	if err != nil {
		return i, apierror.InField("spiffe_id", err)
	}
	if id.Path() == "" {
		return i, apierror.InField("spiffe_id",
			fmt.Errorf("%w: the SPIFFE ID %s has no path; callers expect that of a workload", errInstance, id))
	}
	if grant.HasPathPrefix(id.Path(), grant.ReservedPath) {
		return i, apierror.InField("spiffe_id", fmt.Errorf(
			"%w: %s lies below %s/, which is reserved for members",
			ErrReserved, id, grant.ReservedPath,
		))
	}
	weight := m.GetWeight()
	if weight == 0 {
		weight = 1
	}
	if weight > plan.MaxWeight {
		return i, apierror.InField("weight",
			fmt.Errorf("%w: the weight is %d; 1 to %d are allowed", errInstance, weight, plan.MaxWeight))
	}
	health, err := healthFromProto(m.GetHealth(), plan.Healthy)
	if err != nil {
		return i, apierror.InField("health", err)
	}
	return Instance{
		Service:  m.GetService(),
		Endpoint: plan.Endpoint{Address: address, ID: id, Locality: locality, Weight: weight, Health: health},
		Reported: health,
	}, nil
}

// healthFromProto parses a health; unspecified is the result for the unspecified value.
func healthFromProto(h ententev1.Health, unspecified plan.Health) (plan.Health, error) {
	switch h {
	case ententev1.Health_HEALTH_UNSPECIFIED:
		return unspecified, nil
	case ententev1.Health_HEALTH_HEALTHY, ententev1.Health_HEALTH_DEGRADED,
		ententev1.Health_HEALTH_UNHEALTHY, ententev1.Health_HEALTH_DRAINING:
		return plan.Health(h), nil
	}
	return 0, fmt.Errorf(
		"%w: health %d is not known; healthy, degraded, unhealthy and draining are",
		errInstance, int32(h),
	)
}

// Row returns what is stored. The lease is part of the key.
func (i Instance) Row() *statev1.Instance {
	return &statev1.Instance{
		Service: i.Service, Address: i.Address.String(),
		Region: i.Locality.Region, Zone: i.Locality.Zone, SubZone: i.Locality.SubZone,
		SpiffeId: i.ID.String(), Weight: i.Weight, Health: uint32(i.Reported),
		RegisterTime: timestamppb.New(i.Registered), Generation: i.generation,
	}
}

// sameAs reports whether two registrations are equal, apart from the time of registration.
func (i Instance) sameAs(o Instance) bool {
	return i.Service == o.Service && i.Address == o.Address && i.ID == o.ID && i.Locality == o.Locality &&
		i.Weight == o.Weight && i.Reported == o.Reported && i.Lease == o.Lease
}

// fromRow parses what is stored. It fails only for a row that no version of this package has written.
func fromRow(row raftstore.Row[*statev1.Instance]) (Instance, error) {
	v := row.Value
	i, err := ParseInstance(&ententev1.Instance{
		Service: v.GetService(), Address: v.GetAddress(), SpiffeId: v.GetSpiffeId(), Weight: v.GetWeight(),
		Locality: &ententev1.Locality{Region: v.GetRegion(), Zone: v.GetZone(), SubZone: v.GetSubZone()},
		Health:   ententev1.Health(v.GetHealth()),
	})
	if err != nil {
		return Instance{}, fmt.Errorf("instance %q: %w", row.Key, err)
	}
	key, err := parseInstanceKey(row.Key)
	if err != nil {
		return Instance{}, err
	}
	i.Lease, i.Origin = key.lease, key.origin()
	i.Registered = v.GetRegisterTime().AsTime()
	i.Revision, i.generation = row.Revision, v.GetGeneration()
	return i, nil
}

// Proto returns the message of the API.
func (i Instance) Proto() *ententev1.Instance {
	lease, tag := i.Lease, etag.Of(i.generation)
	if i.Origin != "" {
		lease, tag = "", ""
	}
	return &ententev1.Instance{
		Service: i.Service, Address: i.Address.String(), Locality: i.Locality.Proto(), SpiffeId: i.ID.String(),
		Weight: i.Weight, Health: ententev1.Health(i.Reported), Lease: lease, LeaseExpired: i.LeaseExpired,
		Origin: i.Origin, ImportExpired: i.Expired, Disowned: i.disowned, Kept: i.Kept,
		RegisterTime: timestamppb.New(i.Registered), Revision: uint64(i.Revision), Etag: tag,
	}
}
