package registry

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// setState is what the lease, or the import, of a set makes of its instances.
type setState uint8

const (
	// setGone: the lease or the import does not exist any more. The instances do not count and are deleted later.
	setGone setState = iota
	// setHeld: the instances count as they are registered.
	setHeld
	// setLeaseExpired: the lease has run out. The instances are unhealthy.
	setLeaseExpired
	// setKept: the lease has run out together with others, and the instances stay, unhealthy.
	setKept
	// setExpired: the import has not been confirmed for too long. The instances are not offered.
	setExpired
)

// leaseState returns what a lease makes of the instances of a set.
func leaseState(r raftstore.Reader, of set) (setState, error) {
	lease, found, err := Leases.Get(r, of.lease)
	switch {
	case err != nil || !found:
		return setGone, err
	case lease.Value.GetExpireTime() == nil:
		return setHeld, nil
	}
	service, _, err := leaseServices.Get(r, of.leaseKey())
	switch {
	case err != nil || service.Value.GetRemoved():
		return setGone, err
	case isKept(lease.Value, service.Value):
		return setKept, nil
	}
	return setLeaseExpired, nil
}

// isKept reports whether the instances of a lease in a service are kept although the lease has run out.
func isKept(lease *statev1.Lease, service *statev1.LeaseService) bool {
	return service.GetKeptAt() != nil && proto.Equal(service.GetKeptAt(), lease.GetExpireTime())
}

// importState returns what an import makes of the instances that are stored for it. Instances count only for the import
// that they were received for: one that was deleted and created again starts without any.
func importState(r raftstore.Reader, of set) (setState, error) {
	key := ImportKey(of.service, of.origin())
	wanted, found, err := Imports.Get(r, key)
	if err != nil || !found {
		return setGone, err
	}
	received, found, err := ImportedSets.Get(r, key)
	if err != nil || !found || received.Value.GetImport() != wanted.Value.GetId() ||
		len(received.Value.GetDigest()) == 0 {
		return setGone, err // nothing that was accepted has been received for it
	}
	if _, expired, err := ImportSources.Get(r, of.origin()); err != nil || expired {
		return setExpired, err
	}
	return setHeld, nil
}

// ImportKey returns the key of an import in Imports and in ImportedSets.
func ImportKey(service, from string) string { return service + "/" + from }

// List returns the instances of all services that count, with the health that their leases leave them, in order of
// their keys.
func List(r raftstore.Reader) ([]Instance, error) {
	list, err := decode(r, "")
	return slices.DeleteFunc(list, func(i Instance) bool { return i.disowned }), err
}

// decode returns the instances below a prefix of the table that count. Instances of a lease that is gone and of
// generations that are staged or replaced do not. Registered instances under IDs that no owner of the service covers
// are returned marked as disowned; imported ones follow the list of imports alone.
func decode(r raftstore.Reader, prefix string) ([]Instance, error) {
	var list []Instance
	d := decoder{r: r, states: map[set]setState{}}
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

// decoder decodes consecutive rows of Instances. It caches what they have in common.
type decoder struct {
	r          raftstore.Reader
	set        set
	generation string
	states     map[set]setState
	owners     grant.Owners
	ownersOf   string
}

// key parses the key of a row, and reports whether it belongs to the generation that counts.
func (d *decoder) key(rowKey string) (instanceKey, bool, error) {
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

func (d *decoder) read(row raftstore.Row[*statev1.Instance]) (Instance, bool, error) {
	key, counts, err := d.key(row.Key)
	if err != nil || !counts {
		return Instance{}, false, err
	}
	state, err := d.state(key.set)
	if err != nil || state == setGone {
		return Instance{}, false, err
	}
	i, err := fromRow(row)
	if err != nil {
		return Instance{}, false, err
	}
	if key.origin() == "" {
		if d.ownersOf != i.Service {
			if d.owners, err = grant.OwnersOf(d.r, i.Service); err != nil {
				return Instance{}, false, err
			}
			d.ownersOf = i.Service
		}
		i.disowned = !d.owners.Cover(i.ID)
	}
	switch state {
	case setLeaseExpired, setKept:
		i.LeaseExpired, i.Kept, i.Health = true, state == setKept, plan.Unhealthy
	case setExpired:
		i.Expired = true
	}
	return i, true, nil
}

func (d *decoder) state(of set) (state setState, err error) {
	if of.lease == "" {
		return setHeld, nil
	}
	state, known := d.states[of]
	if known {
		return state, nil
	}
	if of.origin() != "" {
		state, err = importState(d.r, of)
	} else {
		state, err = leaseState(d.r, of)
	}
	d.states[of] = state
	return state, err
}
