package relationship

// PeerPlan is what the relationships require of one peer.
type PeerPlan struct {
	Home      string
	Addresses []string
	// Wanted are the trust domains of the active relationships that name the peer, with what is stored of each.
	Wanted map[string]Holding
	// Hubs are those of them whose domain's cluster is a hub.
	Hubs map[string]*Relationship
}
