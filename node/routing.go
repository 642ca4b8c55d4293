package node

import (
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing"
	"github.com/ententehq/entente/routing/exchange"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/registry/preserve"
	"github.com/ententehq/entente/routing/xds"
	"github.com/ententehq/entente/trust/standing"
)

func buildRouting(m *member) (err error) {
	c := m.cfg.Routing
	m.routing, err = routing.New(routing.Config{
		Store: m.store, Trust: m.trust, Audit: m.audit, Agreements: agreements{}, ImportTTL: c.ImportTTL,
		SelfPreservation: preserve.Threshold(c.SelfPreservation), Leader: m.members, LastContact: m.members.LastContact,
		Settings: plan.Settings{
			OverprovisioningFactor: c.OverprovisioningFactor, PanicThreshold: &c.PanicThreshold,
			Stale: plan.StaleMode(c.Stale),
		},
		Logger: m.log.Named("routing"), Registerer: m.registry,
	})
	if err != nil {
		return err
	}
	m.members.Register(registry.LeaseSection, m.routing.Registry.Tracker)
	m.members.Register(exchange.LivenessSection, m.routing.Exchange.Liveness)
	m.members.Register(exchange.OutcomeSection, m.routing.Exchange.Outcomes)
	m.xds, err = xds.NewCache(xds.Config{
		Store: m.store, Source: m.routing, Roots: m.trust.Roots,
		Home: m.cfg.Cluster.TrustDomain, Region: m.cfg.Cluster.Region,
		Hosts:  func(r raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return table.Hosts(r, td.Name()) },
		Logger: m.log.Named("xds"), Registerer: m.registry,
	})
	return err
}

// agreements gives routing the state of the relationships with the clusters that it shares services with.
type agreements struct{}

// Hosted implements [exchange.Agreements].
func (agreements) Hosted(r raftstore.Reader, trustDomain string) (bool, error) {
	return table.Hosts(r, trustDomain)
}

// With implements [exchange.Agreements]. A domain that is trusted by a hub's attestation alone has no agreement, and no
// service is shared with it.
func (agreements) With(r raftstore.Reader, trustDomain string) (exchange.Agreement, bool, error) {
	row, found, err := relationship.Relationships.Get(r, trustDomain)
	if err != nil || !found {
		return exchange.Agreement{}, false, err
	}
	state := relationship.TrustOf(row.Value).State
	return exchange.Agreement{
		Since:   row.Value.GetCreateTime().AsTime(),
		InForce: state != standing.Suspended && state != standing.AwaitingConsent,
		Peer:    row.Value.GetPeer().GetHomeTrustDomain(),
	}, true, nil
}
