package routing

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

// The bounds of a lease: the lower one leaves room for a lost heartbeat or two between a renewal and the leader, the upper
// one is what still deserves the name.
const (
	MinTTL = 5 * time.Second
	MaxTTL = 24 * time.Hour
)

// ErrInstance is returned for a registration that cannot be taken as it is.
var ErrInstance = errors.New("not an instance")

// Instances is the table of all instances, by "<service>/<IP:port>".
var Instances = raftstore.NewTable[*statev1.Instance]("instances")

// Instance is a registered endpoint of a service. Its Endpoint has no trust state; that is looked up for each hint.
type Instance struct {
	Service string
	Endpoint
	// TTL is the lease's; 0: there is none, and the instance stays until it is deregistered.
	TTL time.Duration
	// Lease names the registration; empty without a lease.
	Lease      string
	Registered time.Time
	Revision   raftstore.Revision
}

// Key is the key of the instance's row.
func (i Instance) Key() string { return instanceKey(i.Service, i.Address.String()) }

func instanceKey(service, address string) string { return service + "/" + address }

func servicePrefix(service string) string { return service + "/" }

// ParseInstance checks a registration whole. What the server sets is ignored, but for the lease, which it returns as the
// caller sent it.
func ParseInstance(m *ententev1.Instance) (Instance, error) {
	var i Instance
	if m == nil {
		return i, fmt.Errorf("%w: it is missing", ErrInstance)
	}
	if err := CheckServiceName(m.GetService()); err != nil {
		return i, err
	}
	address, err := ParseAddress(m.GetAddress())
	if err != nil {
		return i, err
	}
	place, err := localityFrom(m.GetLocality())
	if err != nil {
		return i, err
	}
	if place.Zone == "" {
		return i, fmt.Errorf("%w: %q: an instance runs in a zone; write REGION/ZONE or REGION/ZONE/SUB-ZONE", ErrLocality, place)
	}
	id, err := bundle.ParseID(m.GetSpiffeId())
	if err != nil {
		return i, err
	}
	if id.Path() == "" {
		return i, fmt.Errorf("%w: the SPIFFE ID %s has no path; callers expect that of a workload", ErrInstance, id)
	}
	weight := m.GetWeight()
	if weight == 0 {
		weight = 1
	}
	if weight > MaxWeight {
		return i, fmt.Errorf("%w: the weight is %d; 1 to %d are allowed", ErrInstance, weight, MaxWeight)
	}
	health, err := healthFrom(m.GetHealth(), Healthy)
	if err != nil {
		return i, err
	}
	ttl, err := ttlFrom(m.GetTtl())
	if err != nil {
		return i, err
	}
	if _, err := leaseBytes(m.GetLeaseId()); err != nil {
		return i, err
	}
	return Instance{
		Service:  m.GetService(),
		Endpoint: Endpoint{Address: address, ID: id, Locality: place, Weight: weight, Health: health},
		TTL:      ttl,
		Lease:    m.GetLeaseId(),
	}, nil
}

// healthFrom reads a health, with what stands for unspecified.
func healthFrom(h ententev1.Health, unspecified Health) (Health, error) {
	switch h {
	case ententev1.Health_HEALTH_UNSPECIFIED:
		return unspecified, nil
	case ententev1.Health_HEALTH_HEALTHY, ententev1.Health_HEALTH_DEGRADED, ententev1.Health_HEALTH_UNHEALTHY, ententev1.Health_HEALTH_DRAINING:
		return Health(h), nil
	}
	return 0, fmt.Errorf("%w: health %d is not known; healthy, degraded, unhealthy and draining are", ErrInstance, int32(h))
}

func ttlFrom(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	ttl := d.AsDuration()
	if err := d.CheckValid(); err != nil || ttl < MinTTL || ttl > MaxTTL {
		return 0, fmt.Errorf("%w: a lease of %s; %s to %s are allowed, or none at all", ErrInstance, ttl, MinTTL, MaxTTL)
	}
	return ttl, nil
}

// leaseSize is that of a lease's name: enough that nobody guesses or repeats one.
const leaseSize = 16

func leaseText(b []byte) string { return hex.EncodeToString(b) }

func leaseBytes(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != leaseSize || hex.EncodeToString(b) != text {
		return nil, fmt.Errorf("%w: lease_id %q; send back the one that registration returned, %d hexadecimal digits", ErrInstance, clip(text), 2*leaseSize)
	}
	return b, nil
}

// Row returns what is stored.
func (i Instance) Row() *statev1.Instance {
	row := &statev1.Instance{
		Service: i.Service, Address: i.Address.String(),
		Region: i.Locality.Region, Zone: i.Locality.Zone, SubZone: i.Locality.SubZone,
		SpiffeId: i.ID.String(), Weight: i.Weight, Health: uint32(i.Health),
		RegisterTime: timestamppb.New(i.Registered),
	}
	if i.TTL > 0 {
		row.Ttl = durationpb.New(i.TTL)
	}
	if lease, err := leaseBytes(i.Lease); err == nil {
		row.Lease = lease
	}
	return row
}

// fromRow reads what is stored. A row that does not read is one that no version of this package has written.
func fromRow(row raftstore.Row[*statev1.Instance]) (Instance, error) {
	v := row.Value
	m := &ententev1.Instance{
		Service: v.GetService(), Address: v.GetAddress(), SpiffeId: v.GetSpiffeId(), Weight: v.GetWeight(),
		Locality: &ententev1.Locality{Region: v.GetRegion(), Zone: v.GetZone(), SubZone: v.GetSubZone()},
		Health:   ententev1.Health(v.GetHealth()), Ttl: v.GetTtl(), LeaseId: hex.EncodeToString(v.GetLease()),
	}
	i, err := ParseInstance(m)
	if err != nil {
		return Instance{}, fmt.Errorf("instance %q: %w", row.Key, err)
	}
	i.Registered = v.GetRegisterTime().AsTime()
	i.Revision = row.Revision
	return i, nil
}

// shown is Proto without the lease's name, which is for who registered alone.
func (i Instance) shown() *ententev1.Instance {
	m := i.Proto()
	m.LeaseId = ""
	return m
}

// Proto returns the message of the API.
func (i Instance) Proto() *ententev1.Instance {
	m := &ententev1.Instance{
		Service: i.Service, Address: i.Address.String(), Locality: i.Locality.Proto(), SpiffeId: i.ID.String(),
		Weight: i.Weight, Health: ententev1.Health(i.Health), LeaseId: i.Lease,
		RegisterTime: timestamppb.New(i.Registered), Revision: uint64(i.Revision),
	}
	if i.TTL > 0 {
		m.Ttl = durationpb.New(i.TTL)
	}
	return m
}
