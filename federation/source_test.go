package federation

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/internal/egress/proxytest"
	"github.com/ententehq/entente/trust/standing"
)

// update changes a relationship.
func (r *room) update(t *testing.T, rel *ententev1.Relationship, bootstrap []byte, paths ...string) error {
	t.Helper()
	_, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: rel, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, BootstrapBundle: bootstrap,
	})
	return err
}

// TestStaticRelationship: a partner without an endpoint. Its bundle is fresh, nothing is fetched, and an operator alone
// changes it.
func TestStaticRelationship(t *testing.T) {
	r := newRoom(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	static := &ententev1.Relationship{TrustDomain: "us.example.org", Static: true}
	_, err := r.service.CreateRelationship(t.Context(), &ententev1.CreateRelationshipRequest{Relationship: static})
	refused(t, err, codes.InvalidArgument, "bootstrap_bundle is missing: a static relationship fetches nothing; get "+
		"the bundle of us.example.org from its operator and give it with --bootstrap FILE")
	created := r.create(t, static, us.Bundle(t, 1))
	require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, created.GetFreshness())
	require.Empty(t, created.GetOwner())
	require.Empty(t, created.GetEndpoints())
	require.Nil(t, created.GetMaxStaleJwt(), "its JWT keys count for ever, unless configured")
	require.Nil(t, created.GetRefreshInterval())
	require.NotNil(t, created.GetLastSuccessTime(), "when the operator gave it")

	r.run(t)
	_, err = r.service.RefreshRelationship(t.Context(),
		&ententev1.RefreshRelationshipRequest{TrustDomain: "us.example.org"})
	refused(t, err, codes.FailedPrecondition, "the relationship with us.example.org is static: nothing is fetched; "+
		"replace its bundle with `entente federation update us.example.org --bootstrap FILE`")

	// PEM has no sequence: the newest counts.
	next := us.Rotated(t).Bundle(t, 2)
	require.NoError(t, r.update(t, static, next.PEM()))
	require.Equal(t, next.X509Authorities(), r.stored(t, "us.example.org").X509Authorities())
	require.NoError(t, r.update(t, static, next.Marshal()))
	require.ErrorContains(t, r.update(t, static, us.Bundle(t, 1).Marshal()), "sequence is lower")

	// It becomes one that is fetched, and a static one again with the bundle that it has.
	peer := federationtest.NewEndpoint(t, us, us.Bundle(t, 3))
	polled := spiffeRelationship(us, peer)
	paths := []string{"static", "url", "profile", "endpoint_spiffe_id"}
	require.NoError(t, r.update(t, polled, us.Bundle(t, 3).Marshal(), paths...))
	require.Equal(t, "member-1", r.refresh(t, "us.example.org").GetOwner())
	require.NoError(t, r.update(t, static, nil, paths...))
	r.awaitState(t, "us.example.org", standing.Fresh)
}

// TestRelationshipFromAFile: the file is fetched like an endpoint. Only files below the folder can be named.
func TestRelationshipFromAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundles")
	r := newRoom(t, func(c *Config) { c.Folder = dir })
	r.run(t)
	us := federationtest.NewAuthority(t, "us.example.org")
	rel := &ententev1.Relationship{
		TrustDomain: "us.example.org", Url: "file:///us.json", PollInterval: durationpb.New(time.Second),
	}
	r.create(t, rel, nil)
	failed := func(result, text string) {
		t.Helper()
		got := r.refresh(t, "us.example.org")
		require.Equal(t, result, got.GetLastResult())
		require.Contains(t, got.GetLastError(), text)
	}
	failed("file", `the file with the bundle cannot be read: "us.json" in `+dir+`: no such file or directory`)

	write := func(b *bundle.Bundle) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "us.json"), b.Marshal(), 0o600))
	}
	require.NoError(t, os.Mkdir(dir, 0o700))
	write(us.Bundle(t, 1))
	r.refresh(t, "us.example.org")
	r.awaitSequence(t, "us.example.org", 1)
	require.Equal(t, "unchanged", r.refresh(t, "us.example.org").GetLastResult())
	r.awaitState(t, "us.example.org", standing.Fresh)
	write(us.Bundle(t, 2))
	r.awaitSequence(t, "us.example.org", 2) // by a turn of its own

	// The rules for a bundle are those of every source.
	write(us.Bundle(t, 1))
	failed("rollback", "its sequence is lower than that of the stored bundle")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "us.json"), []byte("root:x:0:0:secret"), 0o600))
	got := r.refresh(t, "us.example.org")
	require.Equal(t, "malformed", got.GetLastResult())
	require.NotContains(t, got.GetLastError(), "secret")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "us.json"), make([]byte, bundle.MaxDocumentBytes+1), 0o600))
	failed("too_large", `file "us.json" has more than 1048576 bytes`)

	// A link that leads out of the folder, and what is no file.
	outside := filepath.Join(t.TempDir(), "outside.json")
	require.NoError(t, os.WriteFile(outside, us.Bundle(t, 9).Marshal(), 0o600))
	require.NoError(t, os.Remove(filepath.Join(dir, "us.json")))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "us.json")))
	failed("file", "path escapes from parent")
	require.NoError(t, os.Remove(filepath.Join(dir, "us.json")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "us.json"), 0o700))
	failed("file", "it is not an ordinary file")

	sequence, _ := r.stored(t, "us.example.org").Sequence()
	require.EqualValues(t, 2, sequence, "an outage takes no trust away")
}

// TestRelationshipFromAFileWithoutFolder names the setting.
func TestRelationshipFromAFileWithoutFolder(t *testing.T) {
	r := newRoom(t)
	r.create(t, &ententev1.Relationship{TrustDomain: "us.example.org", Url: "file:///us.json"}, nil)
	require.Contains(t, r.refresh(t, "us.example.org").GetLastError(), "this member has no federation.bundle_dir; "+
		"configure the folder on every member, since any of them may read the file")
}

// TestEgressProxy: a relationship is fetched through its proxy, or else through that of the member.
func TestEgressProxy(t *testing.T) {
	us := federationtest.NewAuthority(t, "us.example.org")
	peer := federationtest.NewEndpoint(t, us, us.Bundle(t, 1))
	const place = "us.invalid:7443"
	names := map[string]string{place: peer.Server.Listener.Addr().String()}
	global, own := proxytest.New(t, names), proxytest.New(t, names)
	route, err := egress.ParseRoute(global.URL)
	require.NoError(t, err)
	r := newRoom(t, func(c *Config) { c.Route = route })
	r.run(t)
	rel := spiffeRelationship(us, peer)
	rel.Url = "https://" + place + "/"
	r.create(t, rel, us.Bundle(t, 1))
	require.Empty(t, r.refresh(t, "us.example.org").GetLastError())
	require.NotEmpty(t, global.Connected())
	require.Empty(t, own.Connected())

	rel.EgressProxy = own.URL
	require.NoError(t, r.update(t, rel, nil, "egress_proxy"))
	require.Empty(t, r.refresh(t, "us.example.org").GetLastError())
	require.NotEmpty(t, own.Connected())
	e, _ := r.manager.catalog.Get("us.example.org")
	require.NotNil(t, e.Rel)
	plan, _ := r.manager.catalog.PlanOf("us.example.org")
	require.NotNil(t, plan.Route, "a stream to the peer takes the same way")

	// The proxy is lost, and back.
	own.Refuse(http.StatusServiceUnavailable)
	own.Break()
	failed := r.refresh(t, "us.example.org")
	require.Equal(t, "network", failed.GetLastResult())
	require.Contains(t, failed.GetLastError(), "the egress proxy does not connect to us.invalid:7443")
	require.NotNil(t, r.stored(t, "us.example.org"), "an outage takes no trust away")
	own.Refuse(0)
	peer.Serve(us.Bundle(t, 2))
	require.Empty(t, r.refresh(t, "us.example.org").GetLastError())
	r.awaitSequence(t, "us.example.org", 2)

	rel.EgressProxy = "https://proxy:1"
	refused(t, r.update(t, rel, nil, "egress_proxy"), codes.InvalidArgument, `egress_proxy "https://proxy:1" is `+
		`refused: it is not "none", and not the URL of an HTTP proxy; write http://HOST:PORT`)
	rel.EgressProxy = "none"
	require.NoError(t, r.update(t, rel, nil, "egress_proxy"))
	require.Equal(t, "network", r.refresh(t, "us.example.org").GetLastResult(), "the name resolves nowhere")
}
