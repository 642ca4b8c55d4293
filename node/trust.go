package node

import (
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/trust"
)

// trustSources are the tables and rules that decide which trust domains this cluster trusts.
func trustSources() trust.Sources {
	return trust.Sources{
		Hosted: trust.Hosted{
			Hosts: table.Hosts, Domains: table.Domains, Bundles: table.HostedBundles,
			Statements: publish.Statements, History: table.HostedHistory,
		},
		Foreign: relationship.TrustSource(),
	}
}
