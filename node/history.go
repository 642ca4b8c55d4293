package node

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/bundleapi"
	"github.com/ententehq/entente/federation/relationship"
)

// History implements [bundleapi.Catalog]. That of a suspended relationship is shown, and of one that the other side has ended: it is what an
// operator looks into then. Of a domain to which either side never consented nothing is handed out, the past as little as the present.
func (c *catalog) History(ctx context.Context, td spiffeid.TrustDomain, o bundleapi.ReadOptions) (bundleapi.History, error) {
	view, err := c.read(ctx, o)
	if err != nil {
		return bundleapi.History{}, err
	}
	h := bundleapi.History{Revision: uint64(view.Revision())}
	if h.Hosted, err = table.Hosts(view, td.Name()); err != nil {
		return h, err
	}
	if h.Hosted {
		h.Content = func(v *statev1.BundleVersion) (*bundle.Bundle, error) { return publish.HistoryVersion(view, v) }
		h.Versions, err = publish.History(view, td.Name())
		return h, err
	}
	foreign, consented, err := relationship.Consented(view, td.Name())
	if err != nil {
		return h, err
	}
	switch {
	case foreign && !consented:
		return h, bundleapi.ErrNotFound
	case !foreign:
		if _, brought, err := relationship.AttestationOf(view, td.Name()); err != nil {
			return h, err
		} else if !brought {
			return h, bundleapi.ErrNotFound
		}
	}
	h.Versions, h.Content, err = relationship.History(view, td.Name())
	return h, err
}
