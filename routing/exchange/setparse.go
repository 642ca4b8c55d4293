package exchange

import (
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

// The named reasons for which a received set is refused.
const (
	refusedDigest      = "digest_mismatch"
	refusedMany        = "too_many_instances"
	refusedDuplicate   = "duplicate_address"
	refusedForeign     = "foreign_id"
	refusedReserved    = "reserved_id"
	refusedID          = "bad_id"
	refusedAddress     = "bad_address"
	refusedLocality    = "bad_locality"
	refusedMalformed   = "malformed"
	refusedNoRoom      = "no_room"
	refusedNotImported = "not_imported"
)

// refusal is the error for a set that is refused.
type refusal struct{ reason, text string }

func (r *refusal) Error() string { return r.text }

func refuse(reason, format string, args ...any) error {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// reasonOf returns the named reason of a refusal.
func reasonOf(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.reason
	}
	return refusedMalformed
}

// parseSet parses a set that another cluster sent. Instances are checked like registrations. In addition every SPIFFE
// ID must lie in the domain of the set, and every field must be in its canonical form, so that the content is the one
// that the digest identifies. A set is accepted as a whole or not at all.
func parseSet(
	key setKey, claimed digest, notExported bool, list []*ententev1.PeerInstance,
) ([]registry.Instance, error) {
	switch {
	case len(list) > maxImportedSet:
		return nil, tooMany()
	case notExported && len(list) > 0:
		return nil, refuse(refusedMalformed, "it is marked as not exported, but has instances")
	case digestOfSet(key, notExported, list) != claimed:
		return nil, refuse(refusedDigest, "its content does not match its digest")
	}
	instances := make([]registry.Instance, 0, len(list))
	seen := make(map[string]bool, len(list))
	for n, m := range list {
		i, err := parsePeerInstance(key, m)
		if err != nil {
			return nil, fmt.Errorf("instance %d: %w", n, err)
		}
		if seen[m.GetAddress()] {
			return nil, refuse(refusedDuplicate, "it has the address %s twice", i.Address)
		}
		seen[m.GetAddress()] = true
		instances = append(instances, i)
	}
	return instances, nil
}

func tooMany() error {
	return refuse(
		refusedMany,
		"it has more than %d instances, which is the limit for an import; export fewer of them",
		maxImportedSet,
	)
}

func parsePeerInstance(key setKey, m *ententev1.PeerInstance) (registry.Instance, error) {
	if m.GetHealth() == ententev1.Health_HEALTH_UNSPECIFIED || m.GetWeight() == 0 {
		return registry.Instance{}, refuse(refusedMalformed, "its health or its weight is missing")
	}
	i, err := registry.ParseInstance(&ententev1.Instance{
		Service: key.service, Address: m.GetAddress(), Locality: m.GetLocality(), SpiffeId: m.GetSpiffeId(),
		Weight: m.GetWeight(), Health: m.GetHealth(),
	})
	switch {
	case errors.Is(err, plan.ErrAddress):
		return i, &refusal{refusedAddress, err.Error()}
	case errors.Is(err, plan.ErrLocality):
		return i, &refusal{refusedLocality, err.Error()}
	case errors.Is(err, bundle.ErrID), errors.Is(err, bundle.ErrTrustDomain):
		return i, &refusal{refusedID, err.Error()}
	case errors.Is(err, registry.ErrReserved):
		return i, &refusal{refusedReserved, err.Error()}
	case err != nil:
		return i, &refusal{refusedMalformed, err.Error()}
	case i.ID.TrustDomain() != spiffeid.RequireTrustDomainFromString(key.domain):
		return i, refuse(refusedForeign, "the SPIFFE ID %s does not lie in %s", i.ID, key.domain)
	case i.Address.String() != m.GetAddress() || i.ID.String() != m.GetSpiffeId():
		return i, refuse(refusedMalformed, "the address %q or the SPIFFE ID %q is not in its canonical form",
			plan.Clip(m.GetAddress()), plan.Clip(m.GetSpiffeId()))
	}
	return i, nil
}
