package node

import (
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/routing"
)

// cargo has the streams to peers carry what routing shares with other clusters. Routing is built after federation, and before any
// stream opens.
type cargo struct{ member *member }

// Carry implements [federation.Cargo].
func (c cargo) Carry(s federation.CargoStream) federation.Freight {
	return c.member.routing.Carry(routing.PeerStream{Home: s.Home, Domains: s.Domains, Wake: s.Wake})
}
