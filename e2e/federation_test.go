package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// quick makes bundles travel within a second.
const quick = `
federation {
  min_refresh      = "1s"
  peer_min_refresh = "1s"
}
bundle_endpoint {
  listen       = "BUNDLES"
  refresh_hint = "1s"
}
`

// homeBundle reads a cluster's own bundle over its admin socket.
func homeBundle(t testing.TB, c *cluster) *ententev1.Bundle {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	b, err := c.members[0].socket().Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{})
	require.NoError(t, err)
	return b
}

// federate makes c trust other.
func federate(t testing.TB, c, other *cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	_, err := c.members[0].socket().Federation().CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: other.domain, Url: "https://" + other.members[0].bundles + "/",
			Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
			EndpointSpiffeId: "spiffe://" + other.domain + "/entente/bundle-endpoint",
		},
		BootstrapBundle: homeBundle(t, other).GetDocument(),
	})
	require.NoError(t, err)
}

// workload is an X509-SVID with its trust.
type workload struct {
	svid   *x509svid.SVID
	bundle *spiffebundle.Bundle
}

func (w workload) GetX509SVID() (*x509svid.SVID, error) { return w.svid, nil }

// issue gets an X509-SVID over the admin socket of a member.
func issue(t testing.TB, p *process, id string) workload {
	t.Helper()
	w, err := tryIssue(t, p, id)
	require.NoError(t, err)
	return w
}

func tryIssue(t testing.TB, p *process, id string) (workload, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	issued, err := p.socket().Issue(ctx, client.X509SourceConfig{ID: spiffeid.RequireFromString(id)})
	if err != nil {
		return workload{}, err
	}
	trust, err := spiffebundle.Parse(issued.SVID.ID.TrustDomain(), issued.Response.GetBundle())
	require.NoError(t, err)
	return workload{svid: issued.SVID, bundle: trust}, nil
}

// call returns a client of a member's port that presents the workload's SVID.
func (w workload) call(t testing.TB, p *process, home string, options ...grpc.DialOption) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), client.WithAddresses(p.api), client.WithDialOptions(options...),
		client.WithSource(spiffeid.RequireTrustDomainFromString(home), w, w.bundle))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestGoSPIFFEReadsTheEndpointOfARealMember(t *testing.T) {
	c := newCluster(t, "eu", 1, "")
	td := spiffeid.RequireTrustDomainFromString(c.domain)
	known, err := spiffebundle.Parse(td, homeBundle(t, c).GetDocument())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	fetched, err := gospiffe.FetchBundle(ctx, td, "https://"+c.members[0].bundles+"/",
		gospiffe.WithSPIFFEAuth(known, spiffeid.RequireFromString("spiffe://"+c.domain+"/entente/bundle-endpoint")))
	require.NoError(t, err)
	require.True(t, known.Equal(fetched))
}

func TestTrustBetweenTwoClusters(t *testing.T) {
	eu, us := newCluster(t, "eu", 1, quick), newCluster(t, "us", 1, quick)
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	caller := issue(t, us.members[0], "spiffe://us.example.org/web")
	admin := eu.members[0].socket()

	// eu does not trust us yet.
	outsider := workload{svid: caller.svid, bundle: issue(t, eu.members[0], "spiffe://eu.example.org/any").bundle}
	_, err := outsider.call(t, eu.members[0], eu.domain).Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)

	// With a relationship the handshake succeeds, and access is still a matter of grants.
	federate(t, eu, us)
	api := outsider.call(t, eu.members[0], eu.domain).Bundles()
	eventually(t, "the port trusts us", func() error {
		_, err = api.GetBundle(ctx, &ententev1.GetBundleRequest{})
		if status.Code(err) == codes.PermissionDenied {
			return nil
		}
		return fmt.Errorf("%w", err)
	})
	require.Contains(t, err.Error(), "entente access grant")
	_, err = admin.Access().GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: &ententev1.Grant{
		Role: ententev1.Role_ROLE_READER, SpiffeId: "spiffe://us.example.org/web", TrustDomain: eu.domain,
	}})
	require.NoError(t, err)
	got, err := api.GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: eu.domain})
	require.NoError(t, err)
	require.Equal(t, homeBundle(t, eu).GetDigest(), got.GetDigest())

	// What is published there arrives here.
	watch, err := api.WatchBundles(ctx, &ententev1.WatchBundlesRequest{})
	require.NoError(t, err)
	_, err = us.members[0].socket().
		Authorities().
		RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{Anchors: true})
	require.NoError(t, err)
	eventually(t, "the new bundle of us is in eu", func() error {
		there := homeBundle(t, us)
		here, err := admin.Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: us.domain})
		if err != nil {
			return err
		}
		if there.GetX509Authorities() < 2 || here.GetDigest() != there.GetDigest() {
			return fmt.Errorf("sequence %d here, %d there", here.GetSequence(), there.GetSequence())
		}
		return nil
	})

	// The end of the relationship ends the connections of its callers, and notifies watches.
	_, err = admin.Federation().DeleteRelationship(ctx, &ententev1.DeleteRelationshipRequest{TrustDomain: us.domain})
	require.NoError(t, err)
	for err == nil {
		_, err = watch.Recv()
	}
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	_, err = admin.Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: us.domain})
	require.Equal(t, codes.NotFound, status.Code(err), "%v", err)
}

// TestAMembersRenewalsDropNoConnection keeps one watch open while the member's own SVID is renewed several times.
func TestAMembersRenewalsDropNoConnection(t *testing.T) {
	c := newCluster(t, "eu", 1, quick+`authority {
  ca_ttl        = "1h"
  x509_svid_ttl = "5s"
}
`)
	p := c.members[0]
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	domains := p.socket().Domains()
	// The caller's SVID lives longer than the member's, so that only the member's renewals can be what ends the watch.
	for name, ttl := range map[string]time.Duration{
		"callers.example.org": 5 * time.Minute, "passing.example.org": time.Minute,
	} {
		_, err := domains.CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{
			TrustDomain: name, X509SvidTtl: durationpb.New(ttl),
		}})
		require.NoError(t, err)
	}
	const watcher = "spiffe://callers.example.org/watcher"
	_, err := p.socket().Access().GrantRole(ctx, &ententev1.GrantRoleRequest{
		Grant: &ententev1.Grant{Role: ententev1.Role_ROLE_READER, SpiffeId: watcher},
	})
	require.NoError(t, err)
	var caller workload
	eventually(t, "the domain can issue", func() error {
		caller, err = tryIssue(t, p, watcher)
		return err
	})
	var presented x509.Certificate
	conn := workload{svid: caller.svid, bundle: issue(t, p, "spiffe://eu.example.org/any").bundle}.call(t, p, c.domain)
	watch, err := conn.Bundles().WatchBundles(ctx, &ententev1.WatchBundlesRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.NoError(t, err)

	for range 2 {
		was := presented.SerialNumber
		eventually(t, "the member presents a new SVID", func() error {
			presented = *serverCertificate(t, p, caller)
			if was == nil || presented.SerialNumber.Cmp(was) != 0 {
				return nil
			}
			return fmt.Errorf("still serial %s", was)
		})
	}
	_, err = domains.DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: "passing.example.org"})
	require.NoError(t, err)
	for gone := false; !gone; {
		message, err := watch.Recv()
		require.NoError(t, err, "the watch was dropped")
		gone = slices.Contains(message.GetDeleted(), "passing.example.org")
	}
}

// serverCertificate returns what a member's port presents to a client at the moment.
func serverCertificate(t *testing.T, p *process, caller workload) *x509.Certificate {
	t.Helper()
	config := tlsconfig.MTLSClientConfig(
		caller, issue(t, p, "spiffe://eu.example.org/any").bundle,
		tlsconfig.AuthorizeMemberOf(spiffeid.RequireTrustDomainFromString("eu.example.org")),
	)
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", p.api, config)
	require.NoError(t, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}
