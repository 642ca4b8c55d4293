package plan

import (
	"fmt"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust"
)

// MaxWeight is the highest weight of an instance. Together with maxInstances it keeps every sum of weights below 2³²,
// which is what xDS clients insist on.
const MaxWeight = 1 << 20

// Health is what an instance says of itself. The values are those of the API.
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

// Available says whether an instance of this health can get load without a panic.
func (h Health) Available() bool { return h == Healthy || h == Degraded }

// Endpoint is one instance as the arithmetic sees it: where it is, who it is, how it is, and whether who it is can be
// verified at all.
type Endpoint struct {
	Address  netip.AddrPort
	ID       spiffeid.ID
	Locality Locality
	Weight   uint32
	Health   Health
	Trust    trust.State
	// Lapsed says that it is unhealthy because its lease has run out.
	Lapsed bool
	// Origin is the trust domain that it was imported from; empty: it is registered here. Expired says that it was, and
	// that no stream has confirmed it for import_ttl.
	Origin  string
	Expired bool
	// Outranked says that another registration at its address counts, under another lease.
	Outranked bool
	// Supposed says that its health is imagined.
	Supposed bool
}

// why says why an endpoint gets no load without a panic.
func (e Endpoint) why() string {
	if e.Supposed {
		return "it is supposed to be " + e.Health.String()
	}
	if e.Lapsed {
		return "its lease has run out"
	}
	return "it is " + e.Health.String()
}
