package publisher

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/standing"
)

const (
	home = "eu.example.org"
	shop = "shop.example.org"
	us   = "us.example.org"
)

// The tables of the rooms above, as far as the publisher reads them.
var (
	domains       = raftstore.NewTable[*statev1.Domain]("test_domains")
	hosted        = raftstore.NewTable[*statev1.Bundle]("test_hosted")
	history       = raftstore.NewTable[*statev1.BundleVersion]("test_history")
	relationships = raftstore.NewTable[*statev1.Relationship]("test_relationships")
	foreign       = raftstore.NewTable[*statev1.Bundle]("test_foreign")
	attestations  = raftstore.NewTable[*statev1.HubBundle]("test_attestations")
)

// status returns the status of a relationship that is suspended, or as fresh as its row.
func status(r *statev1.Relationship) standing.Status {
	if r.GetSuspended() {
		return standing.StatusOf(standing.Suspended)
	}
	return standing.StatusOf(standing.FromFreshness(ententev1.Freshness(r.GetValidity().GetFreshness())))
}

// room has a publisher whose endpoint is read without a network.
type room struct {
	*Publisher
	t *testing.T
}

func newRoom(t *testing.T) *room {
	t.Helper()
	handler, err := endpoint.NewHandler(nil)
	require.NoError(t, err)
	sources := trust.Sources{
		Hosted: trust.Hosted{
			Hosts: func(r raftstore.Reader, td string) (bool, error) {
				_, found := domains.RevisionOf(r, td)
				return found, nil
			},
			Domains: domains, Bundles: hosted, History: history,
		},
		Foreign: trust.Foreign{
			Relationships: relationships, Bundles: foreign, Attestations: attestations, Status: status,
			Attested: func(r *statev1.Relationship) bool { return r.GetAttest() && status(r).State.Verifiable() },
		},
	}
	return &room{New(Config{
		Store: raftstoretest.New(t), Index: trust.NewIndex(sources), Handler: handler,
		Home: spiffeid.RequireTrustDomainFromString(home), Logger: hclog.NewNullLogger(),
	}), t}
}

// change writes a change, and publishes the state after it.
func (r *room) change(fn func(tx *raftstore.Tx) error) error {
	r.t.Helper()
	_, err := r.Store.Update(r.t.Context(), fn)
	require.NoError(r.t, err)
	return r.publish(r.Store.View())
}

func (r *room) row(td string, sequence uint64) *statev1.Bundle {
	r.t.Helper()
	b, err := bundle.New(spiffeid.RequireTrustDomainFromString(td), bundle.Content{Sequence: &sequence})
	require.NoError(r.t, err)
	return b.Row(time.Now())
}

// host makes a domain a hosted one with a bundle.
func (r *room) host(tx *raftstore.Tx, td, host string, sequence uint64) error {
	return errors.Join(
		domains.Put(tx, td, &statev1.Domain{TrustDomain: td, EndpointHost: host}),
		hosted.Put(tx, td, r.row(td, sequence)),
	)
}

// relate writes a relationship with us.example.org, to whose bundle the cluster attests.
func relate(tx *raftstore.Tx, freshness ententev1.Freshness, adjust ...func(*statev1.Relationship)) error {
	row := &statev1.Relationship{
		TrustDomain: us, Attest: true, Validity: &statev1.RelationshipValidity{Freshness: int32(freshness)},
	}
	for _, f := range adjust {
		f(row)
	}
	return relationships.Put(tx, us, row)
}

// get reads a document of the endpoint, as a client that connects to a host does.
func (r *room) get(host, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://"+host+path, nil))
	return w
}

// served returns what the endpoint serves: the domains of the map with their sequences, and the paths and hosts of
// single domains.
func (r *room) served() string {
	r.t.Helper()
	w := r.get("any.test", "/bundles")
	if w.Code != http.StatusOK {
		return fmt.Sprintf("%d %s", w.Code, strings.TrimSpace(w.Body.String()))
	}
	var out []string
	_, err := bundle.ReadMap(w.Body, func(td spiffeid.TrustDomain, document []byte) error {
		b, _, err := bundle.ParseMapped(td, document)
		if err != nil {
			return err
		}
		sequence, _ := b.Sequence()
		out = append(out, fmt.Sprintf("%s@%d", td.Name(), sequence))
		return nil
	})
	require.NoError(r.t, err)
	slices.Sort(out)
	for _, td := range []string{home, shop, us} {
		if r.get("any.test", "/bundles/"+td).Code == http.StatusOK {
			out = append(out, "/bundles/"+td)
		}
		if r.get(td, "/bundles").Code == http.StatusNotFound { // a host of one domain has its bundle alone
			out = append(out, "//"+td)
		}
	}
	return strings.Join(out, " ")
}

// TestPublicationFollowsTheState: each change of the state adds to what the endpoint serves, or takes from it.
func TestPublicationFollowsTheState(t *testing.T) {
	const (
		nothing = "503 no bundle has been published yet; try again in a moment"
		own     = "eu.example.org@1 /bundles/eu.example.org"
		both    = "eu.example.org@1 us.example.org@3 /bundles/eu.example.org /bundles/us.example.org"
	)
	r := newRoom(t)
	require.Equal(t, nothing, r.served())
	suspended := func(row *statev1.Relationship) { row.Suspended = true }
	unattested := func(row *statev1.Relationship) { row.Attest = false }
	for _, step := range []struct {
		name   string
		change func(tx *raftstore.Tx) error
		want   string
	}{
		{
			"another domain than that of the members", func(tx *raftstore.Tx) error { return r.host(tx, shop, "", 1) },
			nothing,
		},
		{
			"it is deleted", func(tx *raftstore.Tx) error {
				return errors.Join(domains.Delete(tx, shop), hosted.Delete(tx, shop))
			}, nothing,
		},
		{"the home domain", func(tx *raftstore.Tx) error { return r.host(tx, home, "", 1) }, own},
		{
			"a relationship without a bundle",
			func(tx *raftstore.Tx) error { return relate(tx, ententev1.Freshness_FRESHNESS_FRESH) }, own,
		},
		{"its bundle", func(tx *raftstore.Tx) error { return foreign.Put(tx, us, r.row(us, 3)) }, both},
		{
			"the relationship is suspended",
			func(tx *raftstore.Tx) error { return relate(tx, ententev1.Freshness_FRESHNESS_FRESH, suspended) }, own,
		},
		{
			"it is resumed, and stale",
			func(tx *raftstore.Tx) error { return relate(tx, ententev1.Freshness_FRESHNESS_STALE) }, both,
		},
		{
			"its bundle has expired",
			func(tx *raftstore.Tx) error { return relate(tx, ententev1.Freshness_FRESHNESS_EXPIRED) }, own,
		},
		{
			"it is fresh again",
			func(tx *raftstore.Tx) error { return relate(tx, ententev1.Freshness_FRESHNESS_FRESH) }, both,
		},
		{
			"a new version", func(tx *raftstore.Tx) error { return foreign.Put(tx, us, r.row(us, 4)) },
			"eu.example.org@1 us.example.org@4 /bundles/eu.example.org /bundles/us.example.org",
		},
		{
			"the cluster attests to it no more",
			func(tx *raftstore.Tx) error { return relate(tx, ententev1.Freshness_FRESHNESS_FRESH, unattested) }, own,
		},
		{
			"the relationship ends", func(tx *raftstore.Tx) error {
				return errors.Join(relationships.Delete(tx, us), foreign.Delete(tx, us))
			}, own,
		},
		{
			"a hosted domain with a host", func(tx *raftstore.Tx) error { return r.host(tx, shop, shop, 7) },
			"eu.example.org@1 shop.example.org@7 /bundles/eu.example.org /bundles/shop.example.org //shop.example.org",
		},
		{
			"its host is taken back", func(tx *raftstore.Tx) error { return r.host(tx, shop, "", 7) },
			"eu.example.org@1 shop.example.org@7 /bundles/eu.example.org /bundles/shop.example.org",
		},
		{
			"it is deleted too", func(tx *raftstore.Tx) error {
				return errors.Join(domains.Delete(tx, shop), hosted.Delete(tx, shop))
			}, own,
		},
	} {
		require.NoError(t, r.change(step.change), step.name)
		require.Equal(t, step.want, r.served(), step.name)
		if step.want == nothing {
			require.EqualError(t, r.Ready(), "no bundle of eu.example.org has been published yet", step.name)
		} else {
			require.NoError(t, r.Ready(), step.name)
		}
	}
}

// TestTheLastStateStays: a state that cannot be rendered is not published in part.
func TestTheLastStateStays(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *room, tx *raftstore.Tx) error
		want   string
	}{
		"one host of two domains": {
			func(r *room, tx *raftstore.Tx) error {
				return errors.Join(r.host(tx, shop, "one.test", 7), r.host(tx, home, "one.test", 2))
			},
			`publish bundles: eu.example.org and shop.example.org both have the endpoint host "one.test"; give each ` +
				"its own",
		},
		"the home domain is gone": {
			func(_ *room, tx *raftstore.Tx) error { return hosted.Delete(tx, home) }, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			require.NoError(t, r.change(func(tx *raftstore.Tx) error {
				return errors.Join(r.host(tx, home, "", 1), r.host(tx, shop, "", 7))
			}))
			before := r.served()
			err := r.change(func(tx *raftstore.Tx) error {
				return errors.Join(r.host(tx, us, "", 3), c.change(r, tx))
			})
			if c.want == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, c.want)
			}
			require.Equal(t, before, r.served())
			require.NoError(t, r.Ready())
			require.NoError(t, r.change(func(tx *raftstore.Tx) error {
				return errors.Join(r.host(tx, home, "", 1), r.host(tx, shop, "", 7))
			}))
			require.Contains(t, r.served(), "us.example.org@3", "it goes on when the state is good again")
		})
	}
}

// TestUnreadableDomains: what one domain publishes cannot be read. It stays as it was last read, or out if it never
// was, and the rotation of another domain is published.
func TestUnreadableDomains(t *testing.T) {
	unreadable := func(td string) *statev1.Bundle { return &statev1.Bundle{TrustDomain: td, Document: []byte("{")} }
	const fresh = ententev1.Freshness_FRESHNESS_FRESH
	for name, c := range map[string]struct {
		damage         func(tx *raftstore.Tx) error
		without, after string
	}{
		"an attested bundle": {
			func(tx *raftstore.Tx) error { return foreign.Put(tx, us, unreadable(us)) },
			"eu.example.org@2 shop.example.org@7 /bundles/eu.example.org /bundles/shop.example.org",
			"eu.example.org@2 shop.example.org@7 us.example.org@3 " +
				"/bundles/eu.example.org /bundles/shop.example.org /bundles/us.example.org",
		},
		"a hosted bundle": {
			func(tx *raftstore.Tx) error { return hosted.Put(tx, shop, unreadable(shop)) },
			"eu.example.org@2 us.example.org@3 /bundles/eu.example.org /bundles/us.example.org",
			"eu.example.org@2 shop.example.org@7 us.example.org@3 " +
				"/bundles/eu.example.org /bundles/shop.example.org /bundles/us.example.org",
		},
		"an issuer": {
			func(tx *raftstore.Tx) error {
				return domains.Put(tx, shop, &statev1.Domain{TrustDomain: shop, OidcIssuer: "http://shop.example.org"})
			},
			"eu.example.org@2 us.example.org@3 /bundles/eu.example.org /bundles/us.example.org",
			"eu.example.org@2 shop.example.org@7 us.example.org@3 " +
				"/bundles/eu.example.org /bundles/shop.example.org /bundles/us.example.org",
		},
	} {
		good := func(r *room, sequence uint64) func(tx *raftstore.Tx) error {
			return func(tx *raftstore.Tx) error {
				return errors.Join(r.host(tx, home, "", sequence), r.host(tx, shop, "", 7),
					foreign.Put(tx, us, r.row(us, 3)), relate(tx, fresh))
			}
		}
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			require.NoError(t, r.change(good(r, 1)))
			require.NoError(t, r.change(func(tx *raftstore.Tx) error {
				return errors.Join(r.host(tx, home, "", 2), c.damage(tx))
			}))
			require.Equal(t, c.after, r.served())
			require.NoError(t, r.change(good(r, 4)))
			require.Equal(t, strings.Replace(c.after, "@2", "@4", 1), r.served())

			r = newRoom(t) // a member that starts
			require.NoError(t, r.change(func(tx *raftstore.Tx) error {
				return errors.Join(good(r, 2)(tx), c.damage(tx))
			}))
			require.Equal(t, c.without, r.served())
		})
	}
	r := newRoom(t)
	require.ErrorContains(t, r.change(func(tx *raftstore.Tx) error {
		return errors.Join(r.host(tx, home, "", 1), hosted.Put(tx, home, unreadable(home)))
	}), "stored bundle of eu.example.org", "without the home domain there is nothing to serve")
	require.Error(t, r.Ready())
}

// hostNames keeps what it is given.
type hostNames struct{ given [][]string }

func (h *hostNames) SetHosts(hosts []string) { h.given = append(h.given, hosts) }

// TestHostNames: a source of certificates has the host names from the first publication on, and after each change.
func TestHostNames(t *testing.T) {
	r, early, late := newRoom(t), &hostNames{}, &hostNames{}
	r.SetHostNames(early)
	require.Empty(t, early.given, "nothing is known yet")
	require.NoError(t, r.change(func(tx *raftstore.Tx) error {
		return errors.Join(r.host(tx, home, "", 1), r.host(tx, shop, "b.test", 1))
	}))
	require.Equal(t, [][]string{{"b.test"}}, early.given)
	r.SetHostNames(late)
	require.Equal(t, [][]string{{"b.test"}}, late.given)
	require.NoError(t, r.change(func(tx *raftstore.Tx) error { return r.host(tx, shop, "", 1) }))
	require.Len(t, late.given, 2)
	require.Empty(t, late.given[1])
}
