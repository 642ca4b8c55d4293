package node

import (
	"errors"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/xds"
	"github.com/ententehq/entente/trust"
)

// parsedBundles bounds the bundles that are kept parsed: those of the domains whose callers connect most.
const parsedBundles = 1024

// trustIndex answers, from the tables of hosted and of foreign domains, whom this cluster can verify now. The TLS port asks it about
// callers and routing about instances, so that both always agree.
type trustIndex struct {
	store  storeRef // the port, which asks, is made before the store
	parsed *lru.Cache[spiffeid.TrustDomain, parsedBundle]
}

// parsedBundle is a stored bundle in the revision of its row.
type parsedBundle struct {
	revision raftstore.Revision
	hosted   bool
	hub      string // by whose word it is; empty: the domain's own
	bundle   *bundle.Bundle
}

func newTrust() *trustIndex {
	parsed, err := lru.New[spiffeid.TrustDomain, parsedBundle](parsedBundles)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	return &trustIndex{parsed: parsed}
}

// trustPrefixes names all that the answers of [trust] depend on.
func trustPrefixes() []raftstore.Prefix {
	return []raftstore.Prefix{
		table.Domains.Prefix(""), table.HostedBundles.Prefix(""),
		relationship.Relationships.Prefix(""), relationship.ForeignBundles.Prefix(""), relationship.HubBundles.Prefix(""),
	}
}

// Prefixes implements [routing.Trust].
func (t *trustIndex) Prefixes() []raftstore.Prefix { return trustPrefixes() }

// State implements [routing.Trust].
func (t *trustIndex) State(r raftstore.Reader, td spiffeid.TrustDomain) (trust.State, error) {
	hosted, err := table.Hosts(r, td.Name())
	if err != nil {
		return trust.Unknown, err
	}
	if hosted {
		return trust.Fresh, nil
	}
	foreign, err := relationship.TrustState(r, td.Name())
	if err != nil {
		return trust.Unknown, err
	}
	return foreign.X509, nil // connections are what routes are for
}

// GetX509BundleForTrustDomain implements [x509bundle.Source]: whom the TLS port lets in.
func (t *trustIndex) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	view := t.store.Load().View()
	state, err := t.State(view, td)
	if err != nil {
		return nil, err
	}
	if !state.Verifiable() {
		return nil, errors.New(state.Sentence(td))
	}
	b, found, err := t.bundle(view, td)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("%s has no bundle yet", td.Name())
	}
	return b.bundle.GetX509BundleForTrustDomain(td)
}

// bundle returns the stored bundle of a hosted or foreign domain, parsed at most once a revision.
func (t *trustIndex) bundle(r raftstore.Reader, td spiffeid.TrustDomain) (parsedBundle, bool, error) {
	row, found, err := table.HostedBundles.Get(r, td.Name())
	hosted := found
	if err == nil && !found {
		row, found, err = relationship.ForeignBundles.Get(r, td.Name())
	}
	if err != nil {
		return parsedBundle{}, false, err
	}
	hub := ""
	if !found {
		if row, hub, found, err = byHub(r, td.Name()); err != nil || !found {
			return parsedBundle{}, false, err
		}
	}
	if known, ok := t.parsed.Get(td); ok && known.revision == row.Revision && known.hosted == hosted && known.hub == hub {
		return known, true, nil
	}
	p, err := parseRow(row, hosted)
	if err != nil {
		return parsedBundle{}, false, err
	}
	p.hub = hub
	t.parsed.Add(td, p)
	return p, true, nil
}

// byHub reads the bundle of a domain that is trusted by a hub's word alone, in the form of a foreign one.
func byHub(r raftstore.Reader, name string) (row raftstore.Row[*statev1.Bundle], hub string, found bool, err error) {
	direct, err := relationship.IsForeign(r, name)
	if err != nil || direct {
		return row, "", false, err // the domain's own word alone counts, even before it has come
	}
	word, found, err := relationship.AttestationOf(r, name)
	if err != nil || !found {
		return row, "", false, err
	}
	said := word.Row.Value
	row = raftstore.Row[*statev1.Bundle]{Key: name, Revision: word.Row.Revision, Value: &statev1.Bundle{
		TrustDomain: name, Document: said.GetDocument(), ChangeTime: said.GetChangeTime(), RetrieveTime: said.GetRetrieveTime(),
	}}
	return row, word.Hub, true, nil
}

// roots lists the domains whose X509-SVIDs can be verified now, with their authorities.
func (t *trustIndex) roots(r raftstore.Reader) ([]xds.Roots, error) {
	var all []xds.Roots
	add := func(name string) error {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return err
		}
		state, err := t.State(r, td)
		if err != nil || !state.Verifiable() {
			return err
		}
		known, found, err := t.bundle(r, td)
		if err == nil && found {
			all = append(all, xds.Roots{TrustDomain: td, Authorities: known.bundle.X509Authorities()})
		}
		return err
	}
	for row, err := range table.HostedBundles.All(r, "") {
		if err != nil {
			return nil, err
		}
		if err := add(row.Key); err != nil {
			return nil, err
		}
	}
	for row, err := range relationship.ForeignBundles.All(r, "") {
		if err != nil {
			return nil, err
		}
		if err := add(row.Key); err != nil {
			return nil, err
		}
	}
	for name, err := range relationship.HubDomains(r) {
		if err != nil {
			return nil, err
		}
		if direct, err := relationship.IsForeign(r, name); err != nil {
			return nil, err
		} else if hosted, err := table.Hosts(r, name); err != nil {
			return nil, err
		} else if direct || hosted {
			continue
		}
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func parseRow(row raftstore.Row[*statev1.Bundle], hosted bool) (parsedBundle, error) {
	b, err := trust.Parse(row.Value)
	if err != nil {
		return parsedBundle{}, fmt.Errorf("stored bundle of %s: %w", row.Key, err)
	}
	return parsedBundle{revision: row.Revision, hosted: hosted, bundle: b}, nil
}
