package federation

import (
	"crypto"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust/standing"
)

// change updates fields of a relationship.
func (r *room) change(t testing.TB, rel *ententev1.Relationship, fields ...string) *ententev1.Relationship {
	t.Helper()
	out, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: rel, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields},
	})
	require.NoError(t, err)
	return out
}

// TestSeveralEndpoints tests that endpoints are tried in order by the same rules, that each result is shown, and that
// the one that works is first from then on.
func TestSeveralEndpoints(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	bad, good := federationtest.NewEndpoint(t, us, us.Bundle(t, 4)), federationtest.NewEndpoint(t, us, us.Bundle(t, 6))
	rel := spiffeRelationship(us, bad)
	rel.FallbackUrls = []string{good.URL}
	r.create(t, rel, us.Bundle(t, 5))
	out := r.refresh(t, "us.example.org")
	require.Equal(t, "stored", out.GetLastResult(), out.GetLastError())
	require.EqualValues(t, 6, out.GetSequence())
	require.Equal(t, []string{"rollback", "stored"}, results(out))
	require.Equal(t, bad.URL, out.GetEndpoints()[0].GetUrl())
	require.NotEmpty(t, out.GetEndpoints()[0].GetError())
	require.Contains(t, r.ledger.Decisions(), "refuse bundle us.example.org: rollback",
		"a refusal is audited though another endpoint was good")

	require.Equal(t, "not_modified", r.refresh(t, "us.example.org").GetLastResult())
	require.Equal(t, 1, bad.Requests(), "the endpoint that works is first")
	good.Close()
	bad.Serve(us.Bundle(t, 7))
	out = r.refresh(t, "us.example.org")
	require.Equal(t, []string{"stored", "network"}, results(out))
	bad.Serve(us.Bundle(t, 1))
	out = r.refresh(t, "us.example.org")
	require.Equal(t, "rollback", out.GetLastResult())
	require.Equal(t, []string{"rollback", "network"}, results(out))
	require.Contains(t, out.GetLastError(), "none of 2 endpoints")
	require.EqualValues(t, 7, out.GetSequence())
	shown, err := r.service.GetRelationship(t.Context(),
		&ententev1.GetRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	require.Equal(t, []string{"rollback", "network"}, results(shown))
}

func results(r *ententev1.Relationship) (out []string) {
	for _, e := range r.GetEndpoints() {
		out = append(out, e.GetResult())
	}
	return out
}

// TestSettingsChangeKeepsBundle tests that a change of profile, endpoint or ID keeps the last good bundle, whether or
// not the new endpoint works, and that a fetch under the old settings stores nothing.
func TestSettingsChangeKeepsBundle(t *testing.T) {
	r := newRoom(t)
	us, web := federationtest.NewAuthority(t, "us.example.org"), federationtest.NewAuthority(t, "web.example.org")
	old := federationtest.NewEndpoint(t, us, us.Bundle(t, 5))
	r.create(t, spiffeRelationship(us, old), us.Bundle(t, 5))

	entered, release := make(chan struct{}), make(chan struct{})
	document := us.Bundle(t, 1<<40, us.Rotated(t)).Marshal()
	old.Handle(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		_, _ = w.Write(document)
	})
	ended := make(chan intake.Outcome, 1)
	go func() { ended <- r.manager.poller.Refresh(t.Context(), "us.example.org") }()
	<-entered
	next := federationtest.NewEndpoint(t, web, us.Bundle(t, 6))
	r.change(t, &ententev1.Relationship{
		TrustDomain: "us.example.org", Url: strings.Replace(next.URL, "127.0.0.1", "localhost", 1),
		Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
	}, "url", "profile", "endpoint_spiffe_id")
	close(release)
	require.Equal(t, "other_profile", (<-ended).Result, "it was made again, by the new settings")
	require.True(t, r.stored(t, "us.example.org").Equal(us.Bundle(t, 5)))

	r.change(t, &ententev1.Relationship{TrustDomain: "us.example.org", WebRoots: web.PEM()}, "web_roots")
	require.EqualValues(t, 6, r.refresh(t, "us.example.org").GetSequence())
	r.change(t, &ententev1.Relationship{
		TrustDomain: "us.example.org", Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
		EndpointSpiffeId: "spiffe://us.example.org/another",
	}, "profile", "endpoint_spiffe_id", "web_roots")
	out := r.refresh(t, "us.example.org")
	require.NotEmpty(t, out.GetLastError())
	require.EqualValues(t, 6, out.GetSequence())
	require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, out.GetFreshness())
}

// TestServingBundle tests that an operator's bundle verifies an endpoint in an otherwise unknown domain.
func TestServingBundle(t *testing.T) {
	r := newRoom(t)
	hub, us := federationtest.NewAuthority(t, "hub.example.org"), federationtest.NewAuthority(t, "us.example.org")
	p := federationtest.NewEndpoint(t, hub, us.Bundle(t, 1))
	rel := spiffeRelationship(hub, p)
	rel.TrustDomain = "us.example.org"
	_, err := r.service.CreateRelationship(t.Context(), &ententev1.CreateRelationshipRequest{Relationship: rel})
	require.ErrorContains(t, err, "or give its bundle with --serving-bundle FILE")
	rel.ServingBundle = hub.Bundle(t, 1).Marshal()
	r.create(t, rel, nil)
	require.Equal(t, "stored", r.refresh(t, "us.example.org").GetLastResult())
	p.Present(t, hub.Rotated(t))
	require.Equal(t, "untrusted_svid", r.refresh(t, "us.example.org").GetLastResult())
	p.Present(t, us)
	require.Equal(t, "no_bundle", r.refresh(t, "us.example.org").GetLastResult(),
		"the domain's own keys do not verify the endpoint")
}

// TestAuthorityKinds tests that excluded kinds of authorities are stored, as part of the domain's digest, but not used.
func TestAuthorityKinds(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	both, err := us.Bundle(t, 1).With(func(c *bundle.Content) {
		c.JWTAuthorities = map[string]crypto.PublicKey{"k": us.Key.Public()}
	})
	require.NoError(t, err)
	p := federationtest.NewEndpoint(t, us, both)
	rel := spiffeRelationship(us, p)
	rel.AuthorityKinds = []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_X509}
	out := r.create(t, rel, both)
	require.Equal(t, "1 JWT authorities", out.GetLeftOut())
	trusted := func() standing.Status {
		got, err := statusOf(r.store.View(), "us.example.org")
		require.NoError(t, err)
		return got
	}
	relied := func() *bundle.Bundle {
		row, _, err := relationship.Relationships.Get(r.store.View(), "us.example.org")
		require.NoError(t, err)
		b, err := relationship.Relied(row.Value, r.stored(t, "us.example.org"))
		require.NoError(t, err)
		return b
	}
	require.Equal(t, standing.Status{State: standing.Bootstrap, X509: standing.Bootstrap, JWT: standing.Expired},
		trusted())
	require.Empty(t, relied().JWTAuthorities())
	require.Len(t, relied().X509Authorities(), 1)
	require.Equal(t, "unchanged", r.refresh(t, "us.example.org").GetLastResult())

	// A change of kinds is another bundle for its readers, at once, and never equivocation.
	before := bundleRevision(t, r)
	r.change(t, &ententev1.Relationship{
		TrustDomain:    "us.example.org",
		AuthorityKinds: []ententev1.AuthorityKind{ententev1.AuthorityKind_AUTHORITY_KIND_JWT},
	}, "authority_kinds")
	require.Greater(t, bundleRevision(t, r), before)
	require.Equal(t, standing.Expired, trusted().X509)
	require.Empty(t, relied().X509Authorities())
	require.Equal(t, "unchanged", r.refresh(t, "us.example.org").GetLastResult(),
		"the endpoint is still verified by the whole bundle")
	require.Empty(t, r.change(t, &ententev1.Relationship{TrustDomain: "us.example.org"},
		"authority_kinds").GetLeftOut())
	require.True(t, relied().Equal(both))
}

func bundleRevision(t *testing.T, r *room) raftstore.Revision {
	row, _, err := relationship.ForeignBundles.Get(r.store.View(), "us.example.org")
	require.NoError(t, err)
	return row.Revision
}

// TestRelationshipLimits tests that the limits of one relationship apply to it, and not to others.
func TestRelationshipLimits(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
	large, err := json.Marshal(map[string]any{"x": strings.Repeat("x", 4<<10)})
	require.NoError(t, err)
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 1))
	p.Handle(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(large) })
	require.Equal(t, "no_keys", r.refresh(t, "us.example.org").GetLastResult())
	r.change(t, &ententev1.Relationship{TrustDomain: "us.example.org", MaxDocumentBytes: 2 << 10}, "max_document_bytes")
	require.Equal(t, "too_large", r.refresh(t, "us.example.org").GetLastResult())
	p.Handle(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r.change(t, &ententev1.Relationship{TrustDomain: "us.example.org",
		FetchTimeout: durationpb.New(500 * time.Millisecond)}, "fetch_timeout")
	out := r.refresh(t, "us.example.org")
	require.Equal(t, "timeout", out.GetLastResult())
	require.Contains(t, out.GetLastError(), "within 500ms")
}
