package domain

import (
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

const (
	home = "eu.example.org"
	shop = "shop.example.org"
	bank = "bank.example.org"
)

var now = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// defaults returns the settings of a domain that is created without its own.
func defaults() plan.Settings {
	return plan.Settings{
		RefreshHint: plan.DefaultRefreshHint, X509SVIDTTL: plan.DefaultX509SVIDTTL,
		JWTSVIDTTL: plan.DefaultJWTSVIDTTL, CATTL: plan.DefaultCATTL,
	}
}

// newService returns a service whose cluster hosts the home domain alone.
func newService(t *testing.T) *Service {
	t.Helper()
	store := raftstoretest.New(t)
	s := NewService(Config{
		Store: store, Home: spiffeid.RequireTrustDomainFromString(home), Defaults: defaults(),
		MinRefresh: plan.DefaultMinRefresh, RootTTL: plan.DefaultRootTTL,
		IsForeign: func(_ raftstore.Reader, td string) (bool, error) { return td == "us.example.org", nil },
		Publisher: &publish.Publisher{
			Member: store.MemberID(), Keys: keys.NewMemory(),
			Alive: func(raftstore.Reader) ([]string, error) { return []string{store.MemberID()}, nil },
		},
		Now: func() time.Time { return now },
	})
	create(t, s, &ententev1.Domain{TrustDomain: home})
	return s
}

func create(t *testing.T, s *Service, d *ententev1.Domain) {
	t.Helper()
	_, err := s.CreateDomain(t.Context(), &ententev1.CreateDomainRequest{Domain: d})
	require.NoError(t, err)
}

func (s *Service) set(t *testing.T, d *ententev1.Domain, paths ...string) error {
	t.Helper()
	_, err := s.UpdateDomain(t.Context(),
		&ententev1.UpdateDomainRequest{Domain: d, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
	return err
}

// refused requires a refusal by its code and its exact text. An empty text requires none.
func refused(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if text == "" {
		require.NoError(t, err)
		return
	}
	require.Equal(t, text, status.Convert(err).Message())
	require.Equal(t, code, status.Code(err))
}

// TestCheck: settings leave a new authority enough time, and roots live for four lives of what is below them.
func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change       func(*plan.Settings)
		rootTTL      time.Duration
		host, issuer string
		want         string
	}{
		"the defaults": {rootTTL: plan.DefaultRootTTL},
		"a hint below the least of the cluster": {
			change: func(s *plan.Settings) { s.RefreshHint = 9 * time.Second },
			want:   "refresh_hint is 9s; it has to be between 10s and 24h0m0s",
		},
		"CAs that live for a quarter of the roots": {rootTTL: 4 * plan.DefaultCATTL},
		"CAs that live for longer": {
			rootTTL: 4*plan.DefaultCATTL - time.Second,
			want:    "ca_ttl is 24h0m0s; it can be a quarter of root_ttl (95h59m59s) at most",
		},
		"roots of an upstream live as it decides": {
			change: func(s *plan.Settings) { s.CATTL = plan.MaxCATTL },
		},
		"an endpoint host": {host: "bundles.shop.example.org"},
		"an endpoint host as a URL": {
			host: "https://a.example.org",
			want: `endpoint_host: "https://a.example.org" is not a DNS name: its labels are 1 to 63 of a-z, 0-9 ` +
				"and -, without - at the ends",
		},
		"an address for a host": {
			host: "192.0.2.1", want: `endpoint_host: "192.0.2.1" is not a DNS name: its last label is a number`,
		},
		"an issuer": {issuer: "https://shop.example.org:8443/tokens"},
		"an issuer without TLS": {
			issuer: "http://shop.example.org",
			want:   `oidc_issuer: issuer "http://shop.example.org": not an issuer: it does not begin with "https://"`,
		},
		"an issuer with a slash at its end": {
			issuer: "https://shop.example.org/",
			want: `oidc_issuer: issuer "https://shop.example.org/": not an issuer: its path ends with a slash, ` +
				"or has an empty segment",
		},
	} {
		t.Run(name, func(t *testing.T) {
			settings := defaults()
			if c.change != nil {
				c.change(&settings)
			}
			s := NewService(Config{MinRefresh: plan.DefaultMinRefresh, RootTTL: c.rootTTL})
			refused(t, s.check(settings, c.host, c.issuer), codes.InvalidArgument, c.want)
		})
	}
}

// TestCheckConstraints: an upstream that makes the roots decides on their name constraints.
func TestCheckConstraints(t *testing.T) {
	own, upstream := NewService(Config{RootTTL: plan.DefaultRootTTL}), NewService(Config{})
	require.NoError(t, own.checkConstraints(true))
	require.NoError(t, upstream.checkConstraints(false))
	refused(t, upstream.checkConstraints(true), codes.InvalidArgument,
		"name_constraints: the upstream makes the roots; add the constraint to a root there")
}

// TestCreatable: a domain is new, not foreign, and has addresses of its own.
func TestCreatable(t *testing.T) {
	s := newService(t)
	create(t, s, &ententev1.Domain{
		TrustDomain: shop, EndpointHost: "bundles.shop.example.org", OidcIssuer: "https://id.shop.example.org/tokens",
	})
	for name, c := range map[string]struct {
		wanted *ententev1.Domain
		code   codes.Code
		want   string
	}{
		"another": {
			wanted: &ententev1.Domain{
				TrustDomain: bank, EndpointHost: "bundles.bank.example.org",
				OidcIssuer: "https://id.shop.example.org/bank",
			},
		},
		"one that is hosted": {
			&ententev1.Domain{TrustDomain: shop}, codes.AlreadyExists,
			"this cluster hosts shop.example.org already; change it with domain update",
		},
		"the home domain": {
			&ententev1.Domain{TrustDomain: home}, codes.AlreadyExists,
			"this cluster hosts eu.example.org already; change it with domain update",
		},
		"a foreign one": {
			&ententev1.Domain{TrustDomain: "us.example.org"}, codes.FailedPrecondition,
			"there is a relationship with us.example.org, and a hosted domain is never foreign; delete the " +
				"relationship first",
		},
		"the host of another": {
			&ententev1.Domain{TrustDomain: bank, EndpointHost: "bundles.shop.example.org"}, codes.AlreadyExists,
			"endpoint_host bundles.shop.example.org is that of shop.example.org; each domain needs its own",
		},
		"the issuer of another": {
			&ententev1.Domain{TrustDomain: bank, OidcIssuer: "https://id.shop.example.org/tokens"}, codes.AlreadyExists,
			"oidc_issuer https://id.shop.example.org/tokens is that of shop.example.org, whatever the port; " +
				"each domain needs its own",
		},
		"the issuer of another at another port": {
			&ententev1.Domain{TrustDomain: bank, OidcIssuer: "https://id.shop.example.org:8443/tokens"},
			codes.AlreadyExists,
			"oidc_issuer https://id.shop.example.org:8443/tokens is that of shop.example.org, whatever the port; " +
				"each domain needs its own",
		},
		"no name": {
			&ententev1.Domain{}, codes.InvalidArgument, "trust_domain is empty; name one, such as example.org",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.CreateDomain(t.Context(), &ententev1.CreateDomainRequest{Domain: c.wanted})
			refused(t, err, c.code, c.want)
			if td := c.wanted.GetTrustDomain(); err == nil {
				_, err := s.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: td})
				require.NoError(t, err)
			}
		})
	}
}

// TestCreatableIsUnsure: a domain is not created while it is not certain that it is not foreign.
func TestCreatableIsUnsure(t *testing.T) {
	s := newService(t)
	s.config.IsForeign = func(raftstore.Reader, string) (bool, error) { return false, errors.New("row is damaged") }
	_, err := s.CreateDomain(t.Context(), &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: shop}})
	require.EqualError(t, err,
		"rpc error: code = Internal desc = look for a relationship with shop.example.org: row is damaged")
	_, err = s.GetDomain(t.Context(), &ententev1.GetDomainRequest{TrustDomain: shop})
	refused(t, err, codes.NotFound, "this cluster is not the authority for shop.example.org; see domain list")
}

// TestLimit: the last domain is created, and none after it.
func TestLimit(t *testing.T) {
	s := newService(t)
	_, err := s.config.Store.Update(t.Context(), func(tx *raftstore.Tx) error {
		for i := range maxDomains - 2 {
			td := fmt.Sprintf("d%d.example.org", i)
			if err := table.Domains.Put(tx, td, &statev1.Domain{TrustDomain: td}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	create(t, s, &ententev1.Domain{TrustDomain: shop})
	_, err = s.CreateDomain(t.Context(), &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: bank}})
	refused(t, err, codes.ResourceExhausted,
		"this cluster hosts 256 trust domains, which is the limit; delete one, or set up another cluster")
}

// TestUpdate: what is refused changes nothing, and what is named alone changes.
func TestUpdate(t *testing.T) {
	const fields = "endpoint_host, oidc_issuer, refresh_hint, peer_min_refresh, x509_svid_ttl, jwt_svid_ttl, ca_ttl"
	s := newService(t)
	create(t, s, &ententev1.Domain{
		TrustDomain: shop, EndpointHost: "bundles.shop.example.org", OidcIssuer: "https://id.shop.example.org",
	})
	create(t, s, &ententev1.Domain{TrustDomain: bank})
	get := func(td string) *ententev1.Domain {
		d, err := s.GetDomain(t.Context(), &ententev1.GetDomainRequest{TrustDomain: td})
		require.NoError(t, err)
		return d
	}
	before := get(bank)
	for name, c := range map[string]struct {
		wanted *ententev1.Domain
		paths  []string
		code   codes.Code
		want   string
	}{
		"nothing": {
			&ententev1.Domain{TrustDomain: bank}, nil, codes.InvalidArgument,
			"update_mask is empty; name the fields to change: " + fields +
				", name_constraints, deletion_protection",
		},
		"what is fixed": {
			&ententev1.Domain{TrustDomain: bank}, []string{"create_time"}, codes.InvalidArgument,
			`update_mask names "create_time", which cannot be changed; ` + fields +
				", name_constraints and deletion_protection can",
		},
		"a home domain without protection": {
			&ententev1.Domain{TrustDomain: home}, []string{"deletion_protection"}, codes.InvalidArgument,
			"deletion_protection of eu.example.org is always set: it is the home domain, which cannot be deleted",
		},
		"no value": {
			&ententev1.Domain{TrustDomain: bank}, []string{"ca_ttl"}, codes.InvalidArgument,
			"ca_ttl is named by update_mask and has no value",
		},
		"no duration": {
			&ententev1.Domain{TrustDomain: bank, JwtSvidTtl: &durationpb.Duration{Seconds: 1, Nanos: -1}},
			[]string{"jwt_svid_ttl"}, codes.InvalidArgument,
			"jwt_svid_ttl is not a duration: it has 1 seconds and -1 nanoseconds",
		},
		"the host of another": {
			&ententev1.Domain{
				TrustDomain: bank, EndpointHost: "bundles.shop.example.org", RefreshHint: durationpb.New(time.Minute),
			},
			[]string{"refresh_hint", "endpoint_host"}, codes.AlreadyExists,
			"endpoint_host bundles.shop.example.org is that of shop.example.org; each domain needs its own",
		},
		"the issuer of another": {
			&ententev1.Domain{TrustDomain: bank, OidcIssuer: "https://id.shop.example.org:8443"},
			[]string{"oidc_issuer"}, codes.AlreadyExists,
			"oidc_issuer https://id.shop.example.org:8443 is that of shop.example.org, whatever the port; each " +
				"domain needs its own",
		},
		"SVIDs that outlive their authority": {
			&ententev1.Domain{TrustDomain: bank, X509SvidTtl: durationpb.New(13 * time.Hour)},
			[]string{"x509_svid_ttl"}, codes.InvalidArgument,
			"SVIDs live for 13h0m0s at most, for which ca_ttl (24h0m0s) is too short: raise ca_ttl to 26h30m0s at " +
				"least, or lower the SVID lifetime",
		},
		"a domain that is not hosted": {
			&ententev1.Domain{TrustDomain: "us.example.org"}, []string{"oidc_issuer"}, codes.NotFound,
			"this cluster is not the authority for us.example.org; see domain list",
		},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, s.set(t, c.wanted, c.paths...), c.code, c.want)
			require.Equal(t, before.GetRevision(), get(bank).GetRevision(), "it changed")
		})
	}

	require.NoError(t, s.set(t, &ententev1.Domain{
		TrustDomain: shop, OidcIssuer: "https://id.shop.example.org:8443", EndpointHost: "other.example.org",
	}, "oidc_issuer"), "an issuer can move to another port")
	require.Equal(t, "https://id.shop.example.org:8443", get(shop).GetOidcIssuer())
	require.Equal(t, "bundles.shop.example.org", get(shop).GetEndpointHost(), "the mask does not name it")
	require.NoError(t, s.set(t, &ententev1.Domain{TrustDomain: shop}, "endpoint_host"))
	require.Empty(t, get(shop).GetEndpointHost())
	require.NoError(t, s.set(t,
		&ententev1.Domain{TrustDomain: bank, EndpointHost: "bundles.shop.example.org"}, "endpoint_host"),
		"the host is free again")
}

// TestEarlierHint: readers that know a longer hint are waited for. A new domain has no readers.
func TestEarlierHint(t *testing.T) {
	s := newService(t)
	create(t, s, &ententev1.Domain{TrustDomain: shop, RefreshHint: durationpb.New(time.Minute)})
	settings := func() plan.Settings {
		row, found, err := table.Domains.Get(s.config.Store.View(), shop)
		require.NoError(t, err)
		require.True(t, found)
		return table.SettingsOf(row.Value)
	}
	require.Zero(t, settings().EarlierHint)
	require.NoError(t, s.set(t,
		&ententev1.Domain{TrustDomain: shop, RefreshHint: durationpb.New(30 * time.Second)}, "refresh_hint"))
	require.Equal(t, time.Minute, settings().EarlierHint)
	require.True(t, now.Add(3*time.Minute).Equal(settings().EarlierHintUntil))
}

// TestDelete: nothing of a domain stays but its sequence, and nothing of another domain goes.
func TestDelete(t *testing.T) {
	s := newService(t)
	view := func() *raftstore.View { return s.config.Store.View() }
	_, err := s.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: home})
	refused(t, err, codes.FailedPrecondition,
		"eu.example.org is the home domain, which names the members; it cannot be deleted")
	_, err = s.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: shop})
	refused(t, err, codes.NotFound, "this cluster is not the authority for shop.example.org; see domain list")

	// The name of the other one begins with that of the first.
	const longer = shop + ".test"
	for i, td := range []string{shop, longer} {
		create(t, s, &ententev1.Domain{TrustDomain: td})
		sequence := uint64(7 + i) //nolint:gosec // small
		b, err := bundle.New(spiffeid.RequireTrustDomainFromString(td), bundle.Content{Sequence: &sequence})
		require.NoError(t, err)
		_, err = s.config.Store.Update(t.Context(), func(tx *raftstore.Tx) error {
			return errors.Join(
				table.HostedBundles.Put(tx, td, b.Row(now)),
				table.Rotations.Put(tx, td, &statev1.Rotation{TrustDomain: td}),
				table.Authorities.Put(tx, table.AuthorityKey(td, "a"), &statev1.Authority{TrustDomain: td, Id: "a"}),
				table.UpstreamAnchors.Put(tx, table.AnchorKey(td, nil), &statev1.UpstreamAnchor{TrustDomain: td}),
				table.HostedHistory.Put(tx, table.DomainPrefix(td)+"7", &statev1.BundleVersion{TrustDomain: td}),
				table.HostedHistoryKeys.Put(tx, table.DomainPrefix(td)+"k", &statev1.BundleKey{}),
			)
		})
		require.NoError(t, err)
	}
	rows := func(td string) (n int) {
		for _, revision := range []func(raftstore.Reader, string) (raftstore.Revision, bool){
			table.Domains.RevisionOf, table.HostedBundles.RevisionOf, table.Rotations.RevisionOf,
		} {
			if _, found := revision(view(), td); found {
				n++
			}
		}
		for _, below := range []func(raftstore.Reader, string) iter.Seq2[string, raftstore.Revision]{
			table.Authorities.Revisions, table.UpstreamAnchors.Revisions, table.HostedHistory.Revisions,
			table.HostedHistoryKeys.Revisions,
		} {
			for range below(view(), table.DomainPrefix(td)) {
				n++
			}
		}
		return n
	}
	require.Equal(t, 7, rows(shop))
	roles := map[string]string{shop: "spiffe://" + shop + "/ci", longer: "spiffe://" + longer + "/ci"}
	for td, id := range roles {
		role, err := grant.Parse(&ententev1.Grant{Role: grant.Issuer, SpiffeId: id, TrustDomain: td})
		require.NoError(t, err)
		_, err = s.config.Store.Update(t.Context(), func(tx *raftstore.Tx) error {
			_, err := grant.Create(tx, role, grant.Origin{By: "test", On: s.config.Store.MemberID(), At: now})
			return err
		})
		require.NoError(t, err)
	}
	_, err = s.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: shop})
	require.NoError(t, err)
	require.Zero(t, rows(shop))
	require.Equal(t, 7, rows(longer))
	for td, id := range roles {
		left, err := grant.Of(view(), spiffeid.RequireFromString(id))
		require.NoError(t, err)
		require.Equal(t, td == longer, len(left) == 1, "grants end with their domain alone: %s", td)
	}

	// A domain that was deleted without a bundle keeps the sequence of the one before it.
	for range 2 {
		last, err := publish.LastSequence(view(), shop)
		require.NoError(t, err)
		require.EqualValues(t, 7, last)
		create(t, s, &ententev1.Domain{TrustDomain: shop})
		_, err = s.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: shop})
		require.NoError(t, err)
	}
}

// TestDeletionProtection: a protected domain is deleted only after the protection was taken away, also by a dry run.
func TestDeletionProtection(t *testing.T) {
	s := newService(t)
	create(t, s, &ententev1.Domain{TrustDomain: shop, DeletionProtection: true})
	for _, dry := range []bool{true, false} {
		_, err := s.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: shop, DryRun: dry})
		refused(t, err, codes.FailedPrecondition, "the trust domain shop.example.org is protected from deletion; "+
			"take that away first: entente domain update shop.example.org --deletion-protection=false")
		require.Equal(t, apierror.DeletionProtected, apierror.Reason(status.Convert(err)))
	}
	get := func() *ententev1.Domain {
		d, err := s.GetDomain(t.Context(), &ententev1.GetDomainRequest{TrustDomain: shop})
		require.NoError(t, err)
		return d
	}
	before := get()
	require.True(t, before.GetDeletionProtection())
	require.NoError(t, s.set(t, &ententev1.Domain{TrustDomain: shop}, "deletion_protection"))
	require.False(t, get().GetDeletionProtection())
	require.NotEqual(t, before.GetEtag(), get().GetEtag())
	_, err := s.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: shop})
	require.NoError(t, err)
}
