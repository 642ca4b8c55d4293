package routing

import (
	"fmt"
	"strings"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// Instances are kept in sets: those of one service that share a lease, or have none. A set can be replaced whole; when that
// does not fit into one command, its new generation is staged beside the one that counts, which the row in Sets names.
var (
	// Instances is the table of all instances, by "<service>/<lease, or ->/<generation>/<IP:port>".
	Instances = raftstore.NewTable[*statev1.Instance]("instances")
	// Sets says which generation of a set counts, by "<service>/<lease, or ->". A set without a row is in its first.
	Sets = raftstore.NewTable[*statev1.InstanceSet]("instance_sets")
	// leaseServices lists the services in which a lease has instances, by "<lease>/<service>".
	leaseServices = raftstore.NewTable[*statev1.InstanceSet]("lease_services")
)

const (
	noLease         = "-"
	firstGeneration = "0"
)

func servicePrefix(service string) string { return service + "/" }

// set names the instances of a service that share a lease; an empty lease: those that have none. Those that were imported
// from a trust domain are a set too, with that domain behind originMark in place of the lease.
type set struct{ service, lease string }

func (s set) String() string {
	if s.lease == "" {
		return s.service + "/" + noLease
	}
	return s.service + "/" + s.lease
}

// generation returns the one that counts.
func (s set) generation(r raftstore.Reader) (string, error) {
	row, found, err := Sets.Get(r, s.String())
	if err != nil || !found {
		return firstGeneration, err
	}
	return row.Value.GetGeneration(), nil
}

func (s set) in(generation string) string { return s.String() + "/" + generation + "/" }

// list returns the instances of the set as they are registered, without regard to its lease.
func (s set) list(r raftstore.Reader) (string, map[string]Instance, error) {
	generation, err := s.generation(r)
	if err != nil {
		return "", nil, err
	}
	out := make(map[string]Instance)
	for row, err := range Instances.All(r, s.in(generation)) {
		if err != nil {
			return "", nil, err
		}
		i, err := fromRow(row)
		if err != nil {
			return "", nil, err
		}
		out[i.Address.String()] = i
	}
	return generation, out, nil
}

// index notes that a lease has instances in a service. It writes only the first time, so that registrations under one lease
// do not wait for each other.
func (s set) index(tx *raftstore.Tx) error {
	if s.lease == "" || s.origin() != "" {
		return nil
	}
	return leaseServices.Put(tx, s.lease+"/"+s.service, &statev1.InstanceSet{})
}

// servicesOf lists the services in which a lease has, or had, instances.
func servicesOf(r raftstore.Reader, lease string) ([]string, error) {
	var out []string
	for row, err := range leaseServices.All(r, lease+"/") {
		if err != nil {
			return nil, err
		}
		out = append(out, strings.TrimPrefix(row.Key, lease+"/"))
	}
	return out, nil
}

// instanceKey is the key of an instance's row, taken apart.
type instanceKey struct {
	set
	generation, address string
}

func parseInstanceKey(key string) (instanceKey, error) {
	parts := strings.SplitN(key, "/", 4)
	if len(parts) != 4 {
		return instanceKey{}, fmt.Errorf("the key %q is not that of an instance", key)
	}
	k := instanceKey{set: set{service: parts[0], lease: parts[1]}, generation: parts[2], address: parts[3]}
	if k.lease == noLease {
		k.lease = ""
	}
	return k, nil
}

// decode returns the instances that count below a prefix of the table, with the health that their leases leave them. What a
// lease that is gone left behind does not count, and neither does a generation that is staged or given up.
func decode(r raftstore.Reader, prefix string) ([]Instance, error) {
	var list []Instance
	d := decoding{r: r, leases: map[string]leaseState{}}
	for row, err := range Instances.All(r, prefix) {
		if err != nil {
			return nil, err
		}
		i, counts, err := d.read(row)
		if err != nil {
			return nil, err
		}
		if counts {
			list = append(list, i)
		}
	}
	return list, nil
}

// decoding remembers what rows that follow each other have in common.
type decoding struct {
	r          raftstore.Reader
	set        set
	generation string
	leases     map[string]leaseState
}

// counts says whether a row is of the generation that counts.
func (d *decoding) counts(rowKey string) (instanceKey, bool, error) {
	key, err := parseInstanceKey(rowKey)
	if err != nil {
		return key, false, err
	}
	if key.set != d.set || d.generation == "" {
		if d.generation, err = key.set.generation(d.r); err != nil {
			return key, false, err
		}
		d.set = key.set
	}
	return key, key.generation == d.generation, nil
}

func (d *decoding) read(row raftstore.Row[*statev1.Instance]) (Instance, bool, error) {
	key, counts, err := d.counts(row.Key)
	if err != nil || !counts {
		return Instance{}, false, err
	}
	state, err := d.state(key.set)
	if err != nil || state == leaseGone {
		return Instance{}, false, err
	}
	i, err := fromRow(row)
	if err != nil {
		return Instance{}, false, err
	}
	switch state {
	case leaseLapsed:
		i.Lapsed, i.Health = true, plan.Unhealthy
	case importExpired:
		i.Expired = true
	}
	return i, true, nil
}

func (d *decoding) state(of set) (state leaseState, err error) {
	if of.lease == "" {
		return leaseHeld, nil
	}
	name, imported := of.lease, of.origin() != ""
	if imported {
		name = of.String() // the state of an import is its service's too
	}
	state, known := d.leases[name]
	if known {
		return state, nil
	}
	if imported {
		state, err = importState(d.r, of)
	} else {
		state, err = stateOf(d.r, of.lease)
	}
	d.leases[name] = state
	return state, err
}
