package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// as grants a role to a new workload of the home domain and returns its client and what the grant warns of.
func (c *cluster) as(t *testing.T, name string, grants ...*ententev1.Grant) (*client.Client, []string) {
	t.Helper()
	id := "spiffe://" + c.domain + "/" + name
	var warnings []string
	for _, g := range grants {
		g.SpiffeId = id
		made, err := c.members[0].socket().Access().GrantRole(t.Context(), &ententev1.GrantRoleRequest{Grant: g})
		require.NoError(t, err)
		warnings = append(warnings, made.GetWarnings()...)
	}
	return issue(t, c.members[0], id).call(t, c.members[0], c.domain), warnings
}

// Whoever has a role can make itself no more than that role is.
func TestRolesDoNotGrow(t *testing.T) {
	c := newCluster(t, "eu", 1, quick)
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	refused := func(err error, text string) {
		t.Helper()
		require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
		require.Contains(t, err.Error(), text)
	}
	_, warnings := c.as(t, "boss", &ententev1.Grant{Role: ententev1.Role_ROLE_ADMIN})
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], "an SVID of spiffe://eu.example.org/boss that was issued before this grant has "+
		"the role admin too, and can be valid until 2")
	require.Contains(t, warnings[0], "; besides administrators, these could have had it issued: none")

	t.Run("an issuer does not issue the SVIDs of administrators", func(t *testing.T) {
		ci, _ := c.as(t, "ci", &ententev1.Grant{Role: ententev1.Role_ROLE_ISSUER, TrustDomain: c.domain})
		const boss = "spiffe://eu.example.org/boss"
		const text = "spiffe://eu.example.org/ci may not issue spiffe://eu.example.org/boss: SVIDs of that ID have " +
			"the role admin. To allow it, an administrator runs: entente access grant issuer --spiffe-id " +
			"spiffe://eu.example.org/ci --domain eu.example.org --may-issue admin"
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		require.NoError(t, err)
		_, err = ci.SVIDs().IssueX509SVID(ctx, &ententev1.IssueX509SVIDRequest{SpiffeId: boss, Csr: csr})
		refused(err, text)
		_, err = ci.SVIDs().IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{SpiffeId: boss, Audience: []string{"a"}})
		refused(err, text)
		batch, err := ci.SVIDs().IssueX509SVIDs(ctx, &ententev1.IssueX509SVIDsRequest{TrustDomain: c.domain,
			Requests: []*ententev1.IssueX509SVIDRequest{{SpiffeId: boss, Csr: csr}}})
		require.NoError(t, err)
		require.Contains(t, batch.GetResults()[0].GetFailure().GetMessage(), text)
		for _, id := range []string{"spiffe://eu.example.org/ci", "spiffe://eu.example.org/web"} {
			_, err = ci.SVIDs().IssueX509SVID(ctx, &ententev1.IssueX509SVIDRequest{SpiffeId: id, Csr: csr})
			require.NoError(t, err)
		}
	})

	t.Run("an operator does not decide who an administrator is", func(t *testing.T) {
		const away = "spiffe://away.example.org/boss"
		_, err := c.members[0].socket().Access().GrantRole(ctx, &ententev1.GrantRoleRequest{
			Grant: &ententev1.Grant{Role: ententev1.Role_ROLE_ADMIN, SpiffeId: away},
		})
		require.NoError(t, err)
		ops, _ := c.as(t, "ops", &ententev1.Grant{Role: ententev1.Role_ROLE_OPERATOR})
		const text = "spiffe://eu.example.org/ops may not decide how IDs of away.example.org are verified: " +
			"spiffe://away.example.org/boss has the role admin. An administrator of every hosted domain can, or " +
			"revokes that role first"
		relationship := func(td string) *ententev1.Relationship {
			return &ententev1.Relationship{TrustDomain: td, Url: "https://192.0.2.1/bundle",
				Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB}
		}
		create := func(td string) *ententev1.CreateRelationshipRequest {
			return &ententev1.CreateRelationshipRequest{Relationship: relationship(td)}
		}
		_, err = ops.Federation().CreateRelationship(ctx, create("away.example.org"))
		refused(err, text)
		_, err = ops.Federation().CreateInvitation(ctx, &ententev1.CreateInvitationRequest{
			TrustDomain: c.domain, ForeignTrustDomain: "away.example.org", Approve: true,
		})
		refused(err, text)
		_, err = ops.Federation().CreateInvitation(ctx, &ententev1.CreateInvitationRequest{
			TrustDomain: c.domain, ForeignTrustDomain: "near.example.org", ForeignHomeTrustDomain: "away.example.org",
		})
		refused(err, text)
		_, err = ops.Federation().CreateRelationship(ctx, create("near.example.org"))
		require.NoError(t, err)
		_, err = c.members[0].socket().Federation().CreateRelationship(ctx, create("away.example.org"))
		require.NoError(t, err)
		_, err = ops.Federation().UpdateRelationship(ctx, &ententev1.UpdateRelationshipRequest{
			Relationship: relationship("away.example.org"), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"url"}},
		})
		refused(err, text)
	})
}
