package authority

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/bundle/endpoint"
)

// TestOIDCVerifierAcceptsJWTSVIDs: a verifier that only knows the URL of the issuer finds the keys and accepts a
// JWT-SVID, even after its authority was replaced.
func TestOIDCVerifierAcceptsJWTSVIDs(t *testing.T) {
	const issuer = "https://example.com/eu" // the host that the test server's certificate is for
	f, c := newSingle(t, nil)
	_, err := c.DomainService().UpdateDomain(t.Context(), &ententev1.UpdateDomainRequest{
		Domain: &ententev1.Domain{
			TrustDomain: home.Name(),
			OidcIssuer:  issuer,
		}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"oidc_issuer"}},
	})
	require.NoError(t, err)
	f.settle()
	handler, err := endpoint.NewHandler(nil)
	require.NoError(t, err)
	publish := func() {
		parsed, err := endpoint.ParseIssuer(issuer)
		require.NoError(t, err)
		require.NoError(
			t,
			handler.Publish(
				endpoint.Publication{Home: home, Hosted: []endpoint.Hosted{{Bundle: f.bundle(home), Issuer: parsed}}}),
		)
	}
	publish()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	client := server.Client()
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
	}
	ctx := oidc.ClientContext(t.Context(), client)
	provider, err := oidc.NewProvider(ctx, issuer)
	require.NoError(t, err)
	verifier := provider.Verifier(&oidc.Config{ClientID: "sts.example", Now: f.now})
	issue := func() string {
		r, err := c.SVIDService().IssueJWTSVID(caller, jwtRequest("sts.example"))
		require.NoError(t, err)
		return r.GetToken()
	}
	first := issue()
	token, err := verifier.Verify(ctx, first)
	require.NoError(t, err)
	require.Equal(t, issuer, token.Issuer)
	require.Equal(t, workload(1), token.Subject)
	require.Equal(t, []string{"sts.example"}, token.Audience)
	_, err = jwtsvid.ParseAndValidate(first, f.bundle(home), []string{"sts.example"})
	require.NoError(t, err, "a token with an issuer is a JWT-SVID still")
	_, err = provider.Verifier(&oidc.Config{ClientID: "other", Now: f.now}).Verify(ctx, first)
	require.ErrorContains(t, err, "audience")

	f.advance(
		plan.DefaultCATTL/2 + plan.DefaultRefreshHint*plan.HintsBeforeUse) // a new key is on its way, and then signs
	f.advance(plan.DefaultRefreshHint * plan.HintsBeforeUse)
	publish()
	_, err = verifier.Verify(ctx, issue())
	require.NoError(t, err)
}

func TestIssuerOfADomain(t *testing.T) {
	_, c := newSingle(t, nil)
	s := c.DomainService()
	made, err := s.CreateDomain(
		t.Context(),
		&ententev1.CreateDomainRequest{
			Domain: &ententev1.Domain{TrustDomain: "pay.example.org", OidcIssuer: "https://oidc.example.org/pay"},
		},
	)
	require.NoError(t, err)
	require.Equal(t, "https://oidc.example.org/pay", made.GetOidcIssuer())
	_, err = s.CreateDomain(
		t.Context(),
		&ententev1.CreateDomainRequest{
			Domain: &ententev1.Domain{TrustDomain: "a.example.org", OidcIssuer: "https://oidc.example.org/"},
		},
	)
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.ErrorContains(
		t,
		err,
		"oidc_issuer: issuer \"https://oidc.example.org/\": not an issuer: its path ends with a slash",
	)
	_, err = s.CreateDomain(
		t.Context(),
		&ententev1.CreateDomainRequest{
			Domain: &ententev1.Domain{TrustDomain: "a.example.org", OidcIssuer: "https://oidc.example.org:8443/pay"},
		},
	)
	require.Equal(t, codes.AlreadyExists, status.Code(err))
	require.ErrorContains(
		t,
		err,
		"oidc_issuer https://oidc.example.org:8443/pay is that of pay.example.org, whatever the port; each domain "+
			"needs its own",
	)
	changed, err := s.UpdateDomain(
		t.Context(),
		&ententev1.UpdateDomainRequest{
			Domain:     &ententev1.Domain{TrustDomain: "pay.example.org"},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"oidc_issuer"}},
		},
	)
	require.NoError(t, err)
	require.Empty(t, changed.GetOidcIssuer())
}
