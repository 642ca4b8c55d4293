package node

import (
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/routing/exchange"
)

// cargo adds the service sync of routing to the streams to peers. Routing is created after federation, and before any stream opens.
type cargo struct{ member *member }

// Carry implements [federation.Cargo].
func (c cargo) Carry(s federation.CargoStream) federation.Freight {
	return serviceSync{c.member.routing.Exchange.NewSync(exchange.Stream{Home: s.Home, Domains: s.Domains, Wake: s.Wake})}
}

// serviceSync is a service sync as federation uses it.
type serviceSync struct{ *exchange.Sync }

// Take implements [federation.Freight].
func (s serviceSync) Take(m *ententev1.PeerMessage) error { return s.Receive(m) }
