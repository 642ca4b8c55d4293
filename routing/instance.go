package routing

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// ErrInstance is returned for a registration that cannot be taken as it is.
var ErrInstance = errors.New("not an instance")

// errReserved is the ErrInstance of an ID that only members have.
var errReserved = fmt.Errorf("%w", ErrInstance)

// Instance is a registered endpoint of a service. Its Endpoint has no trust state; that is looked up for each hint.
type Instance struct {
	Service string
	// Endpoint holds the health that counts: unhealthy once the lease has run out.
	plan.Endpoint
	// Reported is the health that was registered.
	Reported plan.Health
	// Lease is the ID of the lease that the instance stands and falls with; empty: it stays until it is deregistered. Of one that
	// was imported it names the origin behind originMark.
	Lease      string
	Registered time.Time
	Revision   raftstore.Revision
}

// Key is the key of the instance's row for as long as its set was never staged.
func (i Instance) Key() string {
	return set{i.Service, i.Lease}.in(firstGeneration) + i.Address.String()
}

// ParseInstance checks a registration whole. What the server sets is ignored, as is the lease, which is not the instance's
// own to say.
func ParseInstance(m *ententev1.Instance) (Instance, error) {
	var i Instance
	if m == nil {
		return i, fmt.Errorf("%w: it is missing", ErrInstance)
	}
	if err := plan.CheckServiceName(m.GetService()); err != nil {
		return i, err
	}
	address, err := plan.ParseAddress(m.GetAddress())
	if err != nil {
		return i, err
	}
	place, err := plan.LocalityFromProto(m.GetLocality())
	if err != nil {
		return i, err
	}
	if place.Zone == "" {
		return i, fmt.Errorf("%w: %q: an instance runs in a zone; write REGION/ZONE or REGION/ZONE/SUB-ZONE", plan.ErrLocality, place)
	}
	id, err := bundle.ParseID(m.GetSpiffeId())
	if err != nil {
		return i, err
	}
	if id.Path() == "" {
		return i, fmt.Errorf("%w: the SPIFFE ID %s has no path; callers expect that of a workload", ErrInstance, id)
	}
	if access.HasPathPrefix(id.Path(), access.ReservedPath) {
		return i, fmt.Errorf("%w: %s lies below %s/, where only the members themselves are", errReserved, id, access.ReservedPath)
	}
	weight := m.GetWeight()
	if weight == 0 {
		weight = 1
	}
	if weight > plan.MaxWeight {
		return i, fmt.Errorf("%w: the weight is %d; 1 to %d are allowed", ErrInstance, weight, plan.MaxWeight)
	}
	health, err := healthFrom(m.GetHealth(), plan.Healthy)
	if err != nil {
		return i, err
	}
	return Instance{
		Service:  m.GetService(),
		Endpoint: plan.Endpoint{Address: address, ID: id, Locality: place, Weight: weight, Health: health},
		Reported: health,
	}, nil
}

// healthFrom reads a health, with what stands for unspecified.
func healthFrom(h ententev1.Health, unspecified plan.Health) (plan.Health, error) {
	switch h {
	case ententev1.Health_HEALTH_UNSPECIFIED:
		return unspecified, nil
	case ententev1.Health_HEALTH_HEALTHY, ententev1.Health_HEALTH_DEGRADED, ententev1.Health_HEALTH_UNHEALTHY, ententev1.Health_HEALTH_DRAINING:
		return plan.Health(h), nil
	}
	return 0, fmt.Errorf("%w: health %d is not known; healthy, degraded, unhealthy and draining are", ErrInstance, int32(h))
}

// Row returns what is stored. The lease stands in the key.
func (i Instance) Row() *statev1.Instance {
	return &statev1.Instance{
		Service: i.Service, Address: i.Address.String(),
		Region: i.Locality.Region, Zone: i.Locality.Zone, SubZone: i.Locality.SubZone,
		SpiffeId: i.ID.String(), Weight: i.Weight, Health: uint32(i.Reported),
		RegisterTime: timestamppb.New(i.Registered),
	}
}

// sameAs says whether two registrations say the same, whenever they were made.
func (i Instance) sameAs(o Instance) bool {
	return i.Service == o.Service && i.Address == o.Address && i.ID == o.ID && i.Locality == o.Locality &&
		i.Weight == o.Weight && i.Reported == o.Reported && i.Lease == o.Lease
}

// fromRow reads what is stored. A row that does not read is one that no version of this package has written.
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
	i.Revision = row.Revision
	return i, nil
}

// Proto returns the message of the API.
func (i Instance) Proto() *ententev1.Instance {
	lease := i.Lease
	if i.Origin != "" {
		lease = ""
	}
	return &ententev1.Instance{
		Service: i.Service, Address: i.Address.String(), Locality: i.Locality.Proto(), SpiffeId: i.ID.String(),
		Weight: i.Weight, Health: ententev1.Health(i.Reported), Lease: lease, Lapsed: i.Lapsed, Origin: i.Origin, ImportExpired: i.Expired,
		RegisterTime: timestamppb.New(i.Registered), Revision: uint64(i.Revision),
	}
}
