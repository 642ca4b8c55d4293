package federation

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust/standing"
)

func refused(t *testing.T, err error, code codes.Code, message string) {
	t.Helper()
	require.Equal(t, code, status.Code(err), "%v", err)
	require.Equal(t, message, status.Convert(err).Message())
}

func TestCreateRefusals(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	home := federationtest.NewAuthority(t, "eu.example.org")
	hub := federationtest.NewAuthority(t, "hub.example.org")
	r.host(t, home)
	good := &ententev1.Relationship{
		TrustDomain: "us.example.org", Url: "https://127.0.0.1:1/",
		Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
		EndpointSpiffeId: us.EndpointID().String(),
	}
	with := func(change func(*ententev1.Relationship)) *ententev1.Relationship {
		rel := proto.Clone(good).(*ententev1.Relationship)
		change(rel)
		return rel
	}
	noX509, err := bundle.New(us.TrustDomain, bundle.Content{})
	require.NoError(t, err)
	for _, test := range []struct {
		name      string
		rel       *ententev1.Relationship
		bootstrap []byte
		code      codes.Code
		want      string
	}{
		{"nothing", nil, nil, codes.InvalidArgument,
			"trust_domain is missing; name the foreign trust domain, such as us.example.org"},
		{"no bootstrap bundle", good, nil, codes.FailedPrecondition,
			"the endpoint of us.example.org proves itself by the bundle that it serves, and none is stored yet; get " +
				"the document from the peer's operator and give it as the bootstrap bundle (--bootstrap FILE)"},
		{"an empty bootstrap bundle", good, noX509.Marshal(), codes.FailedPrecondition,
			"the bundle of us.example.org holds no X.509 authority, so its endpoint cannot be verified by it; give a " +
				"bootstrap bundle that holds one (--bootstrap FILE)"},
		{"a bootstrap bundle that is none", good, []byte("{}"), codes.InvalidArgument,
			"bootstrap_bundle of us.example.org: " + parseError(t, us,
				[]byte("{}")) + "; get the document from the peer's operator again"},
		{"a hosted domain", with(func(rel *ententev1.Relationship) { rel.TrustDomain = "eu.example.org" }), nil,
			codes.FailedPrecondition,
			"eu.example.org is hosted by this cluster, and a hosted domain is never foreign; name a domain of " +
				"another cluster"},
		{"an endpoint in an unknown domain",
			with(func(rel *ententev1.Relationship) { rel.EndpointSpiffeId = hub.EndpointID().String() }),
			nil, codes.FailedPrecondition,
			"the endpoint of us.example.org proves itself as spiffe://hub.example.org/entente/bundle-endpoint, and " +
				"the bundle of hub.example.org is not known here or its relationship is suspended; create a " +
				"relationship with hub.example.org first, or give its bundle with --serving-bundle FILE"},
		{"an unknown state", with(func(rel *ententev1.Relationship) { rel.State = 9 }), nil, codes.InvalidArgument,
			"state 9 is not known; leave it out, or use active or suspended"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.service.CreateRelationship(t.Context(),
				&ententev1.CreateRelationshipRequest{Relationship: test.rel, BootstrapBundle: test.bootstrap})
			refused(t, err, test.code, test.want)
		})
	}
	require.Zero(t, relationship.Relationships.PrefixRevision(r.store.View(), ""), "nothing was written")
	require.Zero(t, relationship.ForeignBundles.PrefixRevision(r.store.View(), ""), "nothing was written")

	created := r.create(t, good, us.Bundle(t, 3))
	require.Equal(t, ententev1.Freshness_FRESHNESS_BOOTSTRAP, created.GetFreshness())
	require.EqualValues(t, 3, created.GetSequence())
	require.Equal(t, "member-1", created.GetOwner())
	_, err = r.service.CreateRelationship(t.Context(),
		&ententev1.CreateRelationshipRequest{Relationship: good, BootstrapBundle: us.Bundle(t, 3).Marshal()})
	refused(t, err, codes.AlreadyExists,
		"there is a relationship with us.example.org already; change it with `entente federation update "+
			"us.example.org`")

	// With the hosted domain's endpoint the trust is there.
	other := with(func(rel *ententev1.Relationship) {
		rel.TrustDomain, rel.EndpointSpiffeId = "ap.example.org", home.EndpointID().String()
	})
	require.Equal(t, ententev1.Freshness_FRESHNESS_UNSPECIFIED, r.create(t, other, nil).GetFreshness(),
		"its first bundle has not come yet")
}

func parseError(t *testing.T, a *federationtest.Authority, document []byte) string {
	t.Helper()
	_, _, err := bundle.Parse(a.TrustDomain, document)
	require.Error(t, err)
	return err.Error()
}

func TestUpdate(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	rel := &ententev1.Relationship{
		TrustDomain: "us.example.org", Url: "https://127.0.0.1:1/",
		Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
		EndpointSpiffeId: us.EndpointID().String(),
	}
	r.create(t, rel, us.Bundle(t, 7))
	update := func(change func(*ententev1.UpdateRelationshipRequest)) (*ententev1.Relationship, error) {
		req := &ententev1.UpdateRelationshipRequest{
			Relationship: &ententev1.Relationship{TrustDomain: "us.example.org"},
			UpdateMask:   &fieldmaskpb.FieldMask{},
		}
		change(req)
		return r.service.UpdateRelationship(t.Context(), req)
	}
	rebuilt := federationtest.NewAuthority(t, "us.example.org")
	for _, test := range []struct {
		name   string
		change func(*ententev1.UpdateRelationshipRequest)
		code   codes.Code
		want   string
	}{
		{"nothing", func(*ententev1.UpdateRelationshipRequest) {}, codes.InvalidArgument,
			"nothing to update: name fields in update_mask, or give a bootstrap_bundle"},
		{"no such field", func(q *ententev1.UpdateRelationshipRequest) { q.UpdateMask.Paths = []string{"owner"} },
			codes.InvalidArgument,
			`update_mask names "owner", which cannot be updated; these can: attest, authority_kinds, ` +
				`egress_proxy, endpoint_spiffe_id, fallback_urls, fetch_timeout, hub, hub.exclude, hub.include, ` +
				`hub.url, ` +
				`max_document_bytes, max_stale_jwt, max_stale_x509, peer, peer.addresses, ` +
				`poll_interval, profile, serving_bundle, static, url, web_roots`},
		{"a profile that the rest does not fit", func(q *ententev1.UpdateRelationshipRequest) {
			q.UpdateMask.Paths = []string{"profile"}
			q.Relationship.Profile = ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB
		}, codes.InvalidArgument, "endpoint_spiffe_id belongs to profile https_spiffe; leave it out for https_web, " +
			"where the endpoint proves its host name"},
		{"reset alone", func(q *ententev1.UpdateRelationshipRequest) { q.ResetSequence = true }, codes.InvalidArgument,
			"reset_sequence needs a bootstrap_bundle: get the bundle of us.example.org from the peer's operator and " +
				"give it with --bootstrap FILE"},
		{"no such relationship", func(q *ententev1.UpdateRelationshipRequest) {
			q.Relationship.TrustDomain, q.UpdateMask.Paths = "ap.example.org", []string{"url"}
		}, codes.NotFound, "there is no relationship with \"ap.example.org\"; `entente federation list` shows all"},
		{"an older bootstrap bundle", func(q *ententev1.UpdateRelationshipRequest) {
			q.BootstrapBundle = rebuilt.Bundle(t,
				1).Marshal()
		}, codes.FailedPrecondition,
			"the bootstrap bundle of us.example.org is refused: " + relationship.ErrRollback.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := update(test.change)
			refused(t, err, test.code, test.want)
		})
	}
	before := relationship.Relationships.PrefixRevision(r.store.View(), "")
	_, err := update(func(q *ententev1.UpdateRelationshipRequest) {
		q.UpdateMask.Paths, q.Relationship.Url = []string{"url"}, rel.GetUrl()
	})
	require.NoError(t, err)
	require.Equal(t, before, relationship.Relationships.PrefixRevision(r.store.View(), ""),
		"an update to what is there writes nothing")

	out, err := update(func(q *ententev1.UpdateRelationshipRequest) {
		q.UpdateMask.Paths = []string{"url", "max_stale_x509"}
		q.Relationship.Url, q.Relationship.MaxStaleX509 = "https://127.0.0.1:2/", durationpb.New(time.Hour)
	})
	require.NoError(t, err)
	require.Equal(t, "https://127.0.0.1:2/", out.GetUrl())
	require.Equal(t, time.Hour, out.GetMaxStaleX509().AsDuration())
	require.EqualValues(t, 7, out.GetSequence())

	require.Empty(t, r.ledger.Decisions())
	out, err = update(func(q *ententev1.UpdateRelationshipRequest) {
		q.BootstrapBundle, q.ResetSequence = rebuilt.Bundle(t, 1).Marshal(), true
	})
	require.NoError(t, err)
	require.EqualValues(t, 1, out.GetSequence())
	require.True(t, r.stored(t, "us.example.org").SameKeys(rebuilt.Bundle(t, 1)))
	require.Equal(t, []string{"reset bundle sequence us.example.org: begun",
		"reset bundle sequence us.example.org: done"}, r.ledger.Decisions())

	r.ledger.Full = true
	_, err = update(func(q *ententev1.UpdateRelationshipRequest) {
		q.BootstrapBundle, q.ResetSequence = us.Bundle(t, 1).Marshal(), true
	})
	refused(t, err, codes.Unavailable,
		"reset bundle sequence us.example.org: not done, because it cannot be audited: no space left on device; make "+
			"room on the member's disk, or use another member")
	require.True(t, r.stored(t, "us.example.org").SameKeys(rebuilt.Bundle(t, 1)))
}

func TestSuspendResumeDelete(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
	trusted := func() standing.Status {
		state, err := statusOf(r.store.View(), "us.example.org")
		require.NoError(t, err)
		return state
	}
	foreign := func() bool {
		is, err := relationship.IsForeign(r.store.View(), "us.example.org")
		require.NoError(t, err)
		return is
	}
	require.Equal(t, standing.Status{State: standing.Bootstrap, X509: standing.Bootstrap, JWT: standing.Expired},
		trusted(), "there is no JWT authority")
	require.True(t, foreign())

	out, err := r.service.SuspendRelationship(t.Context(),
		&ententev1.SuspendRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	require.Equal(t, ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED, out.GetState())
	require.Empty(t, out.GetOwner())
	require.Equal(t, standing.StatusOf(standing.Suspended), trusted())
	require.NotNil(t, r.stored(t, "us.example.org"), "the bundle is kept")
	_, err = r.service.RefreshRelationship(t.Context(),
		&ententev1.RefreshRelationshipRequest{TrustDomain: "us.example.org"})
	refused(t, err, codes.FailedPrecondition,
		"the relationship with us.example.org is suspended, and a suspended one is not fetched; resume it first with "+
			"`entente federation resume us.example.org`")

	// Nor does it verify another domain's endpoint.
	_, err = r.service.CreateRelationship(
		t.Context(),
		&ententev1.CreateRelationshipRequest{Relationship: &ententev1.Relationship{
			TrustDomain: "ap.example.org", Url: "https://127.0.0.1:1/",
			Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
			EndpointSpiffeId: us.EndpointID().String(),
		}},
	)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))

	_, err = r.service.ResumeRelationship(t.Context(),
		&ententev1.ResumeRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	require.Equal(t, standing.Bootstrap, trusted().State)

	_, err = r.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	require.Nil(t, r.stored(t, "us.example.org"))
	require.Equal(t, standing.Status{}, trusted())
	require.False(t, foreign())
	require.Zero(t, p.Requests())
	for _, call := range []func() error{
		func() error {
			_, err := r.service.DeleteRelationship(t.Context(),
				&ententev1.DeleteRelationshipRequest{TrustDomain: "us.example.org"})
			return err
		},
		func() error {
			_, err := r.service.GetRelationship(t.Context(),
				&ententev1.GetRelationshipRequest{TrustDomain: "us.example.org"})
			return err
		},
		func() error {
			_, err := r.service.RefreshRelationship(t.Context(),
				&ententev1.RefreshRelationshipRequest{TrustDomain: "us.example.org"})
			return err
		},
		func() error {
			_, err := r.service.SuspendRelationship(t.Context(),
				&ententev1.SuspendRelationshipRequest{TrustDomain: "us.example.org"})
			return err
		},
	} {
		refused(t, call(), codes.NotFound,
			"there is no relationship with \"us.example.org\"; `entente federation list` shows all")
	}
}

func TestListAndGetWithLiveFacts(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	hint := 30 * time.Second
	us.Hint = &hint
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 4))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 4))
	r.refresh(t, "us.example.org")
	list, err := r.service.ListRelationships(t.Context(), &ententev1.ListRelationshipsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetRelationships(), 1)
	require.Equal(t, uint64(r.store.View().Revision()), list.GetRevision())
	got, err := r.service.GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{
		TrustDomain: "us.example.org", Read: &ententev1.ReadOptions{
			Consistency: ententev1.Consistency_CONSISTENCY_STALE, MinRevision: list.GetRevision(),
		},
	})
	require.NoError(t, err)
	require.Equal(t, "unchanged", got.GetLastResult())
	require.Empty(t, got.GetLastError())
	require.WithinDuration(t, time.Now(), got.GetLastSuccessTime().AsTime(), federationtest.WaitLimit)
	require.Equal(t, hint, got.GetRefreshInterval().AsDuration())
	require.Equal(t, relationship.DefaultMaxStaleJWT, got.GetMaxStaleJwt().AsDuration())
	require.Len(t, got.GetDigest(), 64)
}

// TestListInPages tests that what does not fit one message, or exceeds page_size, is on the next page.
func TestListInPages(t *testing.T) {
	r := newRoom(t)
	roots := bytes.Repeat(federationtest.NewAuthority(t, "web.example.org").PEM(), 60)
	all := federationtest.Names(120, "example.org")
	for _, name := range all {
		r.create(t, &ententev1.Relationship{
			TrustDomain: name, Url: "https://127.0.0.1:1/",
			Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB, WebRoots: roots,
		}, nil)
	}
	list := func(size int32) (pages int, seen []string) {
		req := &ententev1.ListRelationshipsRequest{PageSize: size}
		for {
			page, err := r.service.ListRelationships(t.Context(), req)
			require.NoError(t, err)
			require.Less(t, proto.Size(page), 4<<20)
			pages++
			for _, rel := range page.GetRelationships() {
				seen = append(seen, rel.GetTrustDomain())
			}
			if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
				return pages, seen
			}
		}
	}
	pages, seen := list(0)
	require.Greater(t, pages, 1)
	require.Equal(t, all, seen)
	pages, seen = list(50)
	require.Equal(t, 3, pages)
	require.Equal(t, all, seen)
	_, err := r.service.ListRelationships(t.Context(), &ententev1.ListRelationshipsRequest{PageSize: -1})
	refused(t, err, codes.InvalidArgument, "page_size is negative; leave it out for as many as fit into one message")
}

// TestHostedIsNeverForeign tests that of two transactions that each read the other's table, only one commits.
func TestHostedIsNeverForeign(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	rel := &ententev1.Relationship{
		TrustDomain: "us.example.org",
		Url:         "https://127.0.0.1:1/",
		Profile:     ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
	}
	runs := 0
	row, err := relationship.FromRequest(rel)
	require.NoError(t, err)
	_, err = r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		if err := r.manager.create(tx, row, nil, "nobody", time.Now()); err != nil {
			return err
		}
		if runs++; runs == 1 {
			r.host(t, us) // commits in between
		}
		return nil
	})
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.Equal(t, 1, runs)
}
