package routing

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// Trust tells which domains can be verified. The node implements it over the tables of hosted domains, relationships
// and foreign bundles.
type Trust interface {
	// State returns the state of a domain in the revision that r reads, at the present time. It is called for each hint,
	// once a domain, from any goroutine, and must not block.
	State(r raftstore.Reader, td spiffeid.TrustDomain) (trust.State, error)
	// Prefixes names what State reads, so that a watched hint moves with it.
	Prefixes() []raftstore.Prefix
}
