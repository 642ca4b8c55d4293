package authority

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

var shop = spiffeid.RequireTrustDomainFromString("shop.example.org")

func txDelete(key string) func(*raftstore.Tx) error {
	return func(tx *raftstore.Tx) error { return table.Authorities.Delete(tx, key) }
}

func TestDomains(t *testing.T) {
	f, c := newSingle(t, func(c *Config) {
		c.IsForeign = func(_ raftstore.Reader, td string) (bool, error) { return td == "us.example.org", nil }
	})
	s, ctx := c.DomainService(), context.Background()

	created, err := s.CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{
		TrustDomain: shop.Name(), EndpointHost: "bundles.shop.example.org", RefreshHint: durationpb.New(time.Minute),
	}})
	require.NoError(t, err)
	require.Equal(t, time.Minute, created.GetRefreshHint().AsDuration())
	require.Equal(t, plan.DefaultX509SVIDTTL, created.GetX509SvidTtl().AsDuration())
	require.NotZero(t, created.GetRevision())

	// It can be signed for as soon as it has been created.
	r, err := c.SVIDService().IssueX509SVID(caller, x509Request(t, "spiffe://shop.example.org/till"))
	require.NoError(t, err)
	require.NotEmpty(t, r.GetBundle())
	f.settle()
	endpoint, err := svid.EndpointID(shop)
	require.NoError(t, err)
	f.awaitOwn(c, endpoint, anyOwn)
	require.NotEqual(t, f.bundle(home).X509Authorities(), f.bundle(shop).X509Authorities(),
		"each hosted domain has anchors of its own")

	for name, test := range map[string]struct {
		domain *ententev1.Domain
		code   codes.Code
		want   string
	}{
		"no name": {
			&ententev1.Domain{}, codes.InvalidArgument, "trust_domain is empty; name one, such as example.org",
		},
		"bad name": {&ententev1.Domain{TrustDomain: "Shop!"}, codes.InvalidArgument, "trust domain "},
		"an ID": {
			&ententev1.Domain{TrustDomain: "spiffe://a.example.org/x"}, codes.InvalidArgument, "trust domain ",
		},
		"there already": {
			&ententev1.Domain{TrustDomain: shop.Name()}, codes.AlreadyExists,
			"this cluster hosts shop.example.org already; change it with domain update",
		},
		"foreign": {
			&ententev1.Domain{TrustDomain: "us.example.org"}, codes.FailedPrecondition,
			"there is a relationship with us.example.org, and a hosted domain is never foreign; delete the " +
				"relationship first",
		},
		"host taken": {
			&ententev1.Domain{TrustDomain: "a.example.org", EndpointHost: "bundles.shop.example.org"},
			codes.AlreadyExists,
			"endpoint_host bundles.shop.example.org is that of shop.example.org; each domain needs its own",
		},
		"bad host": {
			&ententev1.Domain{TrustDomain: "a.example.org", EndpointHost: "a_b"}, codes.InvalidArgument,
			`endpoint_host: "a_b" is not a DNS name`,
		},
		"short hint": {
			&ententev1.Domain{TrustDomain: "a.example.org", RefreshHint: durationpb.New(time.Second)},
			codes.InvalidArgument, "refresh_hint is 1s; it has to be between 10s and 24h0m0s",
		},
		"hint fraction": {
			&ententev1.Domain{TrustDomain: "a.example.org", RefreshHint: durationpb.New(10500 * time.Millisecond)},
			codes.InvalidArgument, "refresh_hint is 10.5s; bundles carry whole seconds",
		},
		"hint broken": {
			&ententev1.Domain{TrustDomain: "a.example.org", RefreshHint: &durationpb.Duration{Seconds: 1, Nanos: -1}},
			codes.InvalidArgument, "refresh_hint is not a duration",
		},
		"long SVIDs": {
			&ententev1.Domain{TrustDomain: "a.example.org", X509SvidTtl: durationpb.New(12 * time.Hour)},
			codes.InvalidArgument,
			"raise ca_ttl (24h0m0s), or lower refresh_hint (5m0s) or the SVID lifetime (12h0m0s)",
		},
		"short SVIDs": {
			&ententev1.Domain{TrustDomain: "a.example.org", JwtSvidTtl: durationpb.New(time.Second)},
			codes.InvalidArgument, "jwt_svid_ttl is 1s; it has to be 5s at least",
		},
		"long CA": {
			&ententev1.Domain{TrustDomain: "a.example.org", CaTtl: durationpb.New(91 * 24 * time.Hour)},
			codes.InvalidArgument, "ca_ttl is 2184h0m0s; it has to be between 5s and 2160h0m0s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: test.domain})
			require.Equal(t, test.code, status.Code(err), "%v", err)
			require.ErrorContains(t, err, test.want)
		})
	}

	list, err := s.ListDomains(ctx, &ententev1.ListDomainsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetDomains(), 2)
	require.True(t, list.GetDomains()[0].GetHome())
	require.Equal(t, shop.Name(), list.GetDomains()[1].GetTrustDomain())

	_, err = s.GetDomain(ctx, &ententev1.GetDomainRequest{TrustDomain: "us.example.org"})
	require.Equal(t, codes.NotFound, status.Code(err))
	_, err = s.UpdateDomain(ctx, &ententev1.UpdateDomainRequest{Domain: &ententev1.Domain{TrustDomain: shop.Name()}})
	require.ErrorContains(t, err, "update_mask is empty; name the fields to change")
	_, err = s.UpdateDomain(
		ctx,
		&ententev1.UpdateDomainRequest{
			Domain:     &ententev1.Domain{TrustDomain: shop.Name()},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"home"}},
		},
	)
	require.ErrorContains(t, err, `update_mask names "home", which cannot be changed`)
	_, err = s.UpdateDomain(
		ctx,
		&ententev1.UpdateDomainRequest{
			Domain:     &ententev1.Domain{TrustDomain: shop.Name()},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"ca_ttl"}},
		},
	)
	require.ErrorContains(t, err, "ca_ttl is named by update_mask and has no value")
	_, err = s.DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: home.Name()})
	require.ErrorContains(t, err, "eu.example.org is the home domain, which names the members; it cannot be deleted")
	_, err = s.DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: "us.example.org"})
	require.Equal(t, codes.NotFound, status.Code(err))
}

func sequenceOf(b *bundle.Bundle) uint64 {
	n, _ := b.Sequence()
	return n
}

// TestSequenceOfADomain: a new hint makes a new document with a new sequence. Longer SVIDs keep authorities published
// for longer. A domain that is deleted and created again continues above its last sequence, with new keys.
func TestSequenceOfADomain(t *testing.T) {
	f, c := newSingle(t, nil)
	s, ctx := c.DomainService(), context.Background()
	create := func() {
		_, err := s.CreateDomain(ctx,
			&ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: shop.Name()}})
		require.NoError(t, err)
		f.settle()
	}
	set := func(d *ententev1.Domain, path string) {
		d.TrustDomain = shop.Name()
		_, err := s.UpdateDomain(ctx,
			&ententev1.UpdateDomainRequest{Domain: d, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{path}}})
		require.NoError(t, err)
		f.settle()
	}
	create()
	one := f.bundle(shop)
	require.EqualValues(t, 1, sequenceOf(one))

	set(&ententev1.Domain{RefreshHint: durationpb.New(time.Minute)}, "refresh_hint")
	two := f.bundle(shop)
	require.EqualValues(t, 2, sequenceOf(two))
	hint, _ := two.RefreshHint()
	require.Equal(t, time.Minute, hint)
	require.True(t, one.SameKeys(two))
	set(&ententev1.Domain{RefreshHint: durationpb.New(time.Minute)}, "refresh_hint")
	require.EqualValues(t, 2, sequenceOf(f.bundle(shop)), "the same again is no change")

	set(&ententev1.Domain{X509SvidTtl: durationpb.New(2 * time.Hour)}, "x509_svid_ttl")
	set(&ententev1.Domain{X509SvidTtl: durationpb.New(time.Hour)}, "x509_svid_ttl")
	for _, a := range c.issuer.State().Domains[shop].Authorities {
		if a.Kind == plan.X509 {
			require.Equal(t, 2*time.Hour, a.LongestSVID, "what was signed while it was longer keeps its life")
		}
	}
	require.EqualValues(t, 2, sequenceOf(f.bundle(shop)))

	names, err := c.keys.Names(context.Background())
	require.NoError(t, err)
	require.Len(t, names, 6, "two roots, two CAs, two JWT keys")
	_, err = s.DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: shop.Name()})
	require.NoError(t, err)
	f.settle()
	_, err = c.SVIDService().IssueX509SVID(caller, x509Request(t, "spiffe://shop.example.org/till"))
	require.Equal(t, codes.NotFound, status.Code(err))
	require.Eventually(t, func() bool {
		names, err := c.keys.Names(context.Background())
		return err == nil && len(names) == 3
	}, testTimeout, time.Millisecond, "the keys of a domain that is gone are deleted")

	create()
	three := f.bundle(shop)
	require.EqualValues(t, 3, sequenceOf(three))
	require.False(t, three.SameKeys(two))
}

// TestRestore: a restore removes nothing that verifies live SVIDs, returns no key that no member holds, and makes every
// sequence leap.
func TestRestore(t *testing.T) {
	f, c := newSingle(t, nil)
	ctx := context.Background()
	_, err := c.DomainService().
		CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: shop.Name()}})
	require.NoError(t, err)
	f.settle()
	var snapshot bytes.Buffer
	_, err = c.store.Snapshots().Save(ctx, &snapshot)
	require.NoError(t, err)
	rotate := func() {
		_, err := c.AuthorityService().RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{Anchors: true})
		require.NoError(t, err)
		f.settle()
		f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	}
	rotate()
	alive := f.issue(c, workload(1))
	before, present := f.bundle(home), ids(f.list(home))
	_, err = c.DomainService().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: shop.Name()})
	require.NoError(t, err)
	f.settle()

	_, err = c.store.Snapshots().Restore(ctx, bytes.NewReader(snapshot.Bytes()))
	require.NoError(t, err)
	f.settle()
	require.Equal(t, present, ids(f.list(home)), "the present authorities are those that the members have the keys of")
	require.Equal(t, sequenceOf(before)+sequenceLeap, sequenceOf(f.bundle(home)))
	for _, verified := range alive {
		require.NoError(t, verified.verify(f.bundle(home), f.now()), verified.what)
	}
	states := map[string]int{}
	for _, a := range f.list(shop) {
		states[a.GetState().String()]++
	}
	require.Equal(t, map[string]int{"AUTHORITY_STATE_RETIRING": 2, "AUTHORITY_STATE_ACTIVE": 2}, states,
		"shop came back without its keys")
	require.Greater(t, sequenceOf(f.bundle(shop)), uint64(sequenceLeap))
	f.issue(c, "spiffe://shop.example.org/till")

	// A new cluster takes over the snapshot of one that is lost.
	other := newFleet(t, nil, raftstoretest.New(t))
	d := other.nodes[0]
	own := ids(other.list(home))
	result, err := d.store.Snapshots().Restore(ctx, bytes.NewReader(snapshot.Bytes()))
	require.NoError(t, err)
	require.True(t, result.Adopted)
	other.settle()
	kept := 0
	for _, a := range other.list(home) {
		if a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
			require.Contains(t, own, a.GetId())
			kept++
		}
	}
	require.Equal(t, 2, kept)
	require.Len(t, other.list(home), 4,
		"the lost cluster's authorities stay published until what they signed has expired")
	require.Greater(t, sequenceOf(other.bundle(home)), uint64(sequenceLeap))
}
