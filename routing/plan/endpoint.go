package plan

import (
	"fmt"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust/standing"
)

// MaxWeight is the highest weight of an instance. Together with the bound of instances of a service it keeps every sum
// of weights below 2³², which xDS clients require.
const MaxWeight = 1 << 20

// Health is the health that an instance reports. Its values are those of the API.
type Health uint8

// Healthy and degraded instances are available; a degraded one gets load only where healthy ones do not suffice.
// An unhealthy or draining one gets load only in a panic.
const (
	Healthy   = Health(ententev1.Health_HEALTH_HEALTHY)
	Degraded  = Health(ententev1.Health_HEALTH_DEGRADED)
	Unhealthy = Health(ententev1.Health_HEALTH_UNHEALTHY)
	Draining  = Health(ententev1.Health_HEALTH_DRAINING)
)

// String returns the word that commands and reasons use.
func (h Health) String() string {
	switch h {
	case Healthy:
		return "healthy"
	case Degraded:
		return "degraded"
	case Unhealthy:
		return "unhealthy"
	case Draining:
		return "draining"
	}
	return fmt.Sprintf("health %d", uint8(h))
}

// Available reports whether an instance of this health can get load without a panic.
func (h Health) Available() bool { return h == Healthy || h == Degraded }

// Endpoint is an instance as the arithmetic needs it: its address, identity, locality, weight and health, and whether
// its identity can be verified.
type Endpoint struct {
	Address  netip.AddrPort
	ID       spiffeid.ID
	Locality Locality
	Weight   uint32
	Health   Health
	Trust    standing.State
	// LeaseExpired means that the endpoint is unhealthy because its lease has run out.
	LeaseExpired bool
	// Kept means that the lease has run out together with others, and that the endpoint stays because of that.
	Kept bool
	// Origin is the trust domain from which the endpoint was imported, or "" if it is registered here. Expired means
	// that no stream has confirmed the import for import_ttl.
	Origin  string
	Expired bool
	// Outranked means that another registration at the same address counts, under another lease.
	Outranked bool
	// Assumed means that the health is assumed by a what-if scenario.
	Assumed bool
}

// why returns why an endpoint gets no load without a panic.
func (e Endpoint) why() string {
	if e.Assumed {
		return "it is assumed to be " + e.Health.String()
	}
	if e.Kept {
		return "kept: lease lost; it was lost together with others, and stays until its holder returns or an " +
			"operator evicts it"
	}
	if e.LeaseExpired {
		return "its lease has run out"
	}
	return "it is " + e.Health.String()
}
