package node

import (
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing"
	"github.com/ententehq/entente/trust"
)

// agreements tells routing what the relationships say of the clusters that it shares services with.
type agreements struct{}

// Hosted implements [routing.Agreements].
func (agreements) Hosted(r raftstore.Reader, trustDomain string) (bool, error) {
	return table.Hosts(r, trustDomain)
}

// With implements [routing.Agreements]. What a hub vouches for is no agreement: nothing is shared with it.
func (agreements) With(r raftstore.Reader, trustDomain string) (routing.Agreement, bool, error) {
	row, found, err := relationship.Relationships.Get(r, trustDomain)
	if err != nil || !found {
		return routing.Agreement{}, false, err
	}
	state := relationship.TrustOf(row.Value).State
	return routing.Agreement{
		Since:   row.Value.GetCreateTime().AsTime(),
		InForce: state != trust.Suspended && state != trust.Unagreed,
		Peer:    row.Value.GetPeer().GetHomeTrustDomain(),
	}, true, nil
}
