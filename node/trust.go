package node

import (
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/xds"
)

// parsedBundles bounds the bundles that are kept parsed: those of the domains whose callers connect most.
const parsedBundles = 1024

// trust answers, from the tables of hosted and of foreign domains, whom this cluster can verify now. The TLS port asks it about
// callers and routing about instances, so that both always agree.
type trust struct {
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

func newTrust() *trust {
	parsed, err := lru.New[spiffeid.TrustDomain, parsedBundle](parsedBundles)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	return &trust{parsed: parsed}
}

// trustPrefixes names all that the answers of [trust] depend on.
func trustPrefixes() []raftstore.Prefix {
	return []raftstore.Prefix{
		table.Domains.Prefix(""), table.HostedBundles.Prefix(""),
		relationship.Relationships.Prefix(""), relationship.ForeignBundles.Prefix(""), relationship.HubBundles.Prefix(""),
	}
}

// Prefixes implements [routing.Trust].
func (t *trust) Prefixes() []raftstore.Prefix { return trustPrefixes() }

// State implements [routing.Trust].
func (t *trust) State(r raftstore.Reader, td spiffeid.TrustDomain) (plan.TrustState, error) {
	hosted, err := table.Hosts(r, td.Name())
	if err != nil {
		return plan.TrustUnknown, err
	}
	if hosted {
		return plan.TrustFresh, nil
	}
	foreign, err := relationship.TrustState(r, td.Name())
	if err != nil {
		return plan.TrustUnknown, err
	}
	// Connections are what routes are for, so what counts is whether X509-SVIDs of the domain can be verified.
	switch foreign.X509 {
	case relationship.Fresh:
		return plan.TrustFresh, nil
	case relationship.Stale:
		return plan.TrustStale, nil
	case relationship.Expired:
		return plan.TrustExpired, nil
	case relationship.Suspended:
		return plan.TrustSuspended, nil
	case relationship.Pending:
		return plan.TrustPending, nil
	case relationship.Unagreed:
		return plan.TrustUnagreed, nil
	default:
		return plan.TrustUnknown, nil
	}
}

// GetX509BundleForTrustDomain implements [x509bundle.Source]: whom the TLS port lets in.
func (t *trust) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	view := t.store.Load().View()
	state, err := t.State(view, td)
	if err != nil {
		return nil, err
	}
	switch state {
	case plan.TrustFresh, plan.TrustStale:
	case plan.TrustExpired:
		return nil, fmt.Errorf("the bundle of %s has expired; see 'entente federation show %s'", td.Name(), td.Name())
	case plan.TrustSuspended:
		return nil, fmt.Errorf("the relationship with %s is suspended; 'entente federation resume %s' takes it up again", td.Name(), td.Name())
	case plan.TrustUnagreed:
		return nil, fmt.Errorf("the agreement with %s lacks the consent of one side; 'entente federation show %s' says whose", td.Name(), td.Name())
	case plan.TrustPending:
		return nil, fmt.Errorf("no bundle of %s has been received yet; see 'entente federation show %s'", td.Name(), td.Name())
	default:
		return nil, fmt.Errorf("%s is neither hosted here nor federated with", td.Name())
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
func (t *trust) bundle(r raftstore.Reader, td spiffeid.TrustDomain) (parsedBundle, bool, error) {
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
func (t *trust) roots(r raftstore.Reader) ([]xds.Roots, error) {
	var all []xds.Roots
	add := func(name string) error {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return err
		}
		state, err := t.State(r, td)
		if err != nil || (state != plan.TrustFresh && state != plan.TrustStale) {
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
	b, err := bundle.FromRow(row.Value)
	if err != nil {
		return parsedBundle{}, fmt.Errorf("stored bundle of %s: %w", row.Key, err)
	}
	return parsedBundle{revision: row.Revision, hosted: hosted, bundle: b}, nil
}
