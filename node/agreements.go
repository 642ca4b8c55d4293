package node

import (
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/exchange"
	"github.com/ententehq/entente/trust"
)

// agreements tells routing what the relationships say of the clusters that it shares services with.
type agreements struct{}

// Hosted implements [exchange.Agreements].
func (agreements) Hosted(r raftstore.Reader, trustDomain string) (bool, error) {
	return table.Hosts(r, trustDomain)
}

// With implements [exchange.Agreements]. What a hub vouches for is no agreement: nothing is shared with it.
func (agreements) With(r raftstore.Reader, trustDomain string) (exchange.Agreement, bool, error) {
	row, found, err := relationship.Relationships.Get(r, trustDomain)
	if err != nil || !found {
		return exchange.Agreement{}, false, err
	}
	state := relationship.TrustOf(row.Value).State
	return exchange.Agreement{
		Since:   row.Value.GetCreateTime().AsTime(),
		InForce: state != trust.Suspended && state != trust.Unagreed,
		Peer:    row.Value.GetPeer().GetHomeTrustDomain(),
	}, true, nil
}
