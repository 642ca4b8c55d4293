package registry

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
)

const (
	noLease         = "-"
	firstGeneration = "0"
	// originMark precedes the trust domain that stands in place of the lease in the key of an imported instance. IDs of
	// leases are hexadecimal.
	originMark = "@"
)

func servicePrefix(service string) string { return service + "/" }

// set identifies the instances of a service that share a lease. The lease is empty for instances without one, and
// originMark followed by a trust domain for instances that were imported from it.
type set struct{ service, lease string }

func importedSet(service, from string) set { return set{service, originMark + from} }

func (s set) String() string {
	if s.lease == "" {
		return s.service + "/" + noLease
	}
	return s.service + "/" + s.lease
}

// origin returns the trust domain from which the instances of the set were imported, or "" if they were not imported.
func (s set) origin() string {
	from, imported := strings.CutPrefix(s.lease, originMark)
	if !imported {
		return ""
	}
	return from
}

// generation returns the generation that counts.
func (s set) generation(r raftstore.Reader) (string, error) {
	row, found, err := Sets.Get(r, s.String())
	if err != nil || !found {
		return firstGeneration, err
	}
	return row.Value.GetGeneration(), nil
}

// in returns the prefix of the rows of a generation.
func (s set) in(generation string) string { return s.String() + "/" + generation + "/" }

// list returns the generation that counts and its instances by address, as registered: the state of the lease is not
// applied.
func (s set) list(r raftstore.Reader) (string, map[string]Instance, error) {
	generation, err := s.generation(r)
	if err != nil {
		return "", nil, err
	}
	instances := make(map[string]Instance)
	for row, err := range Instances.All(r, s.in(generation)) {
		if err != nil {
			return "", nil, err
		}
		i, err := fromRow(row)
		if err != nil {
			return "", nil, err
		}
		instances[i.Address.String()] = i
	}
	return generation, instances, nil
}

// etag returns the etag of all instances of the set together, or [etag.Absent] if there are none.
func (s set) etag(r raftstore.Reader) (string, error) {
	_, instances, err := s.list(r)
	if err != nil || len(instances) == 0 {
		return etag.Absent, err
	}
	hash := sha256.New()
	for _, address := range slices.Sorted(maps.Keys(instances)) {
		fmt.Fprintf(hash, "%s %d\n", address, instances[address].generation)
	}
	return etag.Of(binary.BigEndian.Uint64(hash.Sum(nil)) >> 1), nil
}

// index records that a lease has instances in a service. It writes only the first time, so that registrations under one
// lease do not conflict with each other.
func (s set) index(tx *raftstore.Tx) error {
	if s.lease == "" || s.origin() != "" {
		return nil
	}
	if _, found, err := leaseServices.Get(tx, s.leaseKey()); err != nil || found {
		return err
	}
	return leaseServices.Put(tx, s.leaseKey(), &statev1.LeaseService{})
}

// leaseKey returns the key of the set in leaseServices.
func (s set) leaseKey() string { return s.lease + "/" + s.service }

// servicesOf lists the services in which a lease has, or had, instances.
func servicesOf(r raftstore.Reader, lease string) ([]string, error) {
	var services []string
	for row, err := range leaseServices.All(r, lease+"/") {
		if err != nil {
			return nil, err
		}
		services = append(services, strings.TrimPrefix(row.Key, lease+"/"))
	}
	return services, nil
}

// instanceKey is the parsed key of an instance's row.
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
