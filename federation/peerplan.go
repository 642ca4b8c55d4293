package federation

import (
	"github.com/ententehq/entente/federation/relationship"
)

// peerPlan is what the relationships say of one peer.
type peerPlan struct {
	home      string
	addresses []string
	// wanted are the trust domains of the active relationships that name the peer, with what is stored of each.
	wanted map[string]relationship.Holding
	// hubs are those of them whose domain's cluster is a hub.
	hubs map[string]*relationship.Relationship
}
