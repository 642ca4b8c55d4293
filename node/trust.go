package node

import (
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/bundleapi"
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

// bundleHistory returns the versions of a domain's bundle, also for a relationship that is suspended or that the other
// side ended: an operator needs them then. If one side has never consented, it returns ErrNotFound, as for the bundle.
func bundleHistory(view *raftstore.View, td string, d trust.Decision) (h bundleapi.History, err error) {
	switch d.Origin {
	case trust.ByHosting:
		h.Content = func(v *statev1.BundleVersion) (*bundle.Bundle, error) { return publish.HistoryVersion(view, v) }
		h.Versions, err = publish.History(view, td)
		return h, err
	case trust.ByRelationship:
		if _, consented, err := relationship.EverConsented(view, td); err != nil {
			return h, err
		} else if !consented {
			return h, bundleapi.ErrNotFound
		}
		h.Versions, h.Content, err = relationship.History(view, td)
		return h, err
	case trust.ByAttestation:
		h.Versions, h.Content = relationship.AttestedHistory(d.Attestation.Row.Value)
		return h, nil
	}
	return h, bundleapi.ErrNotFound
}
