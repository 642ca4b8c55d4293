package routing

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/routing/plan"
)

// sharedKey names what travels between clusters as one set: the instances of a service that lie in one trust domain of the
// exporting cluster. The service's name is the one that it is exported as.
type sharedKey struct{ domain, service string }

func (k sharedKey) String() string { return k.service + " of " + k.domain }

// digest names one version of a set. The zero value is that of none.
type digest [sha256.Size]byte

func (d digest) none() bool { return d == digest{} }

// version is the message that names it.
func (k sharedKey) version(d digest) *ententev1.PeerServiceVersion {
	m := &ententev1.PeerServiceVersion{TrustDomain: k.domain, Service: k.service}
	if !d.none() {
		m.Digest = d[:]
	}
	return m
}

// parseShared reads the version that a peer names. Nothing of it is taken on trust but its form.
func parseShared(m *ententev1.PeerServiceVersion) (k sharedKey, d digest, err error) {
	td, err := bundle.ParseTrustDomain(m.GetTrustDomain())
	if err != nil {
		return k, d, fmt.Errorf("the peer names a service of %q, which is no trust domain", plan.Clip(m.GetTrustDomain()))
	}
	if err := plan.CheckServiceName(m.GetService()); err != nil {
		return k, d, fmt.Errorf("the peer names a service of %s: %w", td.Name(), err)
	}
	k = sharedKey{td.Name(), m.GetService()}
	if n := len(m.GetDigest()); n != 0 && n != len(d) {
		return k, d, fmt.Errorf("the peer names a digest of %d bytes for %s", n, k)
	}
	copy(d[:], m.GetDigest())
	return k, d, nil
}

// sharedSet is a set as it travels. It is never changed.
type sharedSet struct {
	key    sharedKey
	digest digest
	// withheld says that the service is not exported to the receiver.
	withheld bool
	// instances are in order of address, each address once.
	instances []*ententev1.PeerInstance
}

func newSharedSet(key sharedKey, withheld bool, instances []*ententev1.PeerInstance) *sharedSet {
	return &sharedSet{key, digestOfSet(key, withheld, instances), withheld, instances}
}

// digestOfSet is SHA-256 over all that a set says, each text with its length before it.
func digestOfSet(key sharedKey, withheld bool, instances []*ententev1.PeerInstance) (d digest) {
	h := sha256.New()
	writeText(h, "entente service set", key.domain, key.service)
	if withheld {
		writeNumber(h, 1)
	} else {
		writeNumber(h, 0)
	}
	writeNumber(h, uint64(len(instances)))
	for _, i := range instances {
		l := i.GetLocality()
		writeText(h, i.GetAddress(), l.GetRegion(), l.GetZone(), l.GetSubZone(), i.GetSpiffeId())
		writeNumber(h, uint64(i.GetWeight()))
		writeNumber(h, uint64(i.GetHealth())) //nolint:gosec // an enumeration's value, which is hashed and nothing else
	}
	h.Sum(d[:0])
	return d
}

func writeText(h hash.Hash, texts ...string) {
	for _, text := range texts {
		writeNumber(h, uint64(len(text)))
		h.Write([]byte(text))
	}
}

func writeNumber(h hash.Hash, n uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	h.Write(b[:])
}

// traveling is an instance as it travels, with the health that counts here.
func traveling(i Instance) *ententev1.PeerInstance {
	return &ententev1.PeerInstance{
		Address: i.Address.String(), Locality: i.Locality.Proto(), SpiffeId: i.ID.String(), Weight: i.Weight, Health: ententev1.Health(i.Health),
	}
}

// The named reasons for which a set is refused.
const (
	refusedDigest      = "digest_mismatch"
	refusedMany        = "too_many_instances"
	refusedTwice       = "duplicate_address"
	refusedForeign     = "foreign_id"
	refusedReserved    = "reserved_id"
	refusedID          = "bad_id"
	refusedAddress     = "bad_address"
	refusedLocality    = "bad_locality"
	refusedMalformed   = "malformed"
	refusedNoRoom      = "no_room"
	refusedNotImported = "not_imported"
)

// refusal is why a set is not taken.
type refusal struct{ reason, text string }

func (r *refusal) Error() string { return r.text }

func refuse(reason, format string, args ...any) error {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// readSet checks a set that came from another cluster as a registration here is checked, and more: every SPIFFE ID lies in the
// domain of the set, and every field is in its one canonical form, so that it is the set that the digest names. It is taken
// whole or not at all.
func readSet(key sharedKey, claimed digest, withheld bool, list []*ententev1.PeerInstance) ([]Instance, error) {
	switch {
	case len(list) > maxImportedSet:
		return nil, refuse(refusedMany, "it has more than %d instances, which is the most for an import; export fewer of them", maxImportedSet)
	case withheld && len(list) > 0:
		return nil, refuse(refusedMalformed, "it is withheld, and has instances")
	case digestOfSet(key, withheld, list) != claimed:
		return nil, refuse(refusedDigest, "it is not what its digest names")
	}
	out := make([]Instance, 0, len(list))
	seen := make(map[string]bool, len(list))
	for n, m := range list {
		i, err := readTraveling(key, m)
		if err != nil {
			return nil, fmt.Errorf("instance %d: %w", n, err)
		}
		if seen[m.GetAddress()] {
			return nil, refuse(refusedTwice, "it has the address %s twice", i.Address)
		}
		seen[m.GetAddress()] = true
		out = append(out, i)
	}
	return out, nil
}

func readTraveling(key sharedKey, m *ententev1.PeerInstance) (Instance, error) {
	if m.GetHealth() == ententev1.Health_HEALTH_UNSPECIFIED || m.GetWeight() == 0 {
		return Instance{}, refuse(refusedMalformed, "its health or its weight is missing")
	}
	i, err := ParseInstance(&ententev1.Instance{
		Service: key.service, Address: m.GetAddress(), Locality: m.GetLocality(), SpiffeId: m.GetSpiffeId(), Weight: m.GetWeight(), Health: m.GetHealth(),
	})
	switch {
	case errors.Is(err, plan.ErrAddress):
		return i, &refusal{refusedAddress, err.Error()}
	case errors.Is(err, plan.ErrLocality):
		return i, &refusal{refusedLocality, err.Error()}
	case errors.Is(err, bundle.ErrID), errors.Is(err, bundle.ErrTrustDomain):
		return i, &refusal{refusedID, err.Error()}
	case errors.Is(err, errReserved):
		return i, &refusal{refusedReserved, err.Error()}
	case err != nil:
		return i, &refusal{refusedMalformed, err.Error()}
	case i.ID.TrustDomain() != spiffeid.RequireTrustDomainFromString(key.domain):
		return i, refuse(refusedForeign, "the SPIFFE ID %s does not lie in %s", i.ID, key.domain)
	case i.Address.String() != m.GetAddress() || i.ID.String() != m.GetSpiffeId():
		return i, refuse(refusedMalformed, "the address %q or the SPIFFE ID %q is not in its canonical form", plan.Clip(m.GetAddress()), plan.Clip(m.GetSpiffeId()))
	}
	return i, nil
}

// reasonOf names why a set is refused.
func reasonOf(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.reason
	}
	return refusedMalformed
}
