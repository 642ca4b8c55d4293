package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/upstream"
)

// vaultlike is an upstream with one root for all members, which can revoke and can be down.
type vaultlike struct {
	*upstream.SelfSigned
	mu      sync.Mutex
	down    bool
	revoked []string
}

func (v *vaultlike) Revoke(_ context.Context, _ spiffeid.TrustDomain, c *x509.Certificate) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.down {
		return errors.Join(errors.New("it is sealed"), errors.New("and far away"))
	}
	v.revoked = append(v.revoked, c.SerialNumber.Text(16))
	return nil
}

func (v *vaultlike) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.revoked)
}

func (*vaultlike) Prune(func(*x509.Certificate) bool) error { return nil }

// SignCA signs below the root whatever was revoked, as an upstream does that does not know of the revocation.
func (v *vaultlike) SignCA(ctx context.Context, r upstream.Request) (*upstream.Signed, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r.NewAnchor, r.Refused = false, nil
	return v.SelfSigned.SignCA(ctx, r)
}

// TestRevokeBelowAnUpstream: the upstream revokes the certificate, or the leader retries. The root stays until an
// operator revokes it too, and nothing below it returns.
func TestRevokeBelowAnUpstream(t *testing.T) {
	keys, err := keys.OpenFolder(t.TempDir() + "/keys")
	require.NoError(t, err)
	upstream := &vaultlike{SelfSigned: upstream.NewSelfSigned(keys, plan.DefaultRootTTL), down: true}
	f := allSign(t, func(c *Config) { c.Upstream = upstream })
	ctx := context.Background()
	root := f.bundle(home).X509Authorities()
	require.Len(t, root, 1)
	c := f.nodes[0]
	x := f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_X509)
	alive := f.issue(c, workload(1))[0]

	revoke := func(r *ententev1.RevokeAuthorityRequest) (*ententev1.RevokeAuthorityResponse, error) {
		r.TrustDomain = home.Name()
		return f.nodes[2].AuthorityService().RevokeAuthority(ctx, r)
	}
	done, err := revoke(&ententev1.RevokeAuthorityRequest{What: &ententev1.RevokeAuthorityRequest_Id{Id: x.GetId()}})
	require.NoError(t, err)
	require.Equal(t, []string{
		"It no longer signs, but its anchor belongs to the upstream and stays in the bundle, and SPIFFE verifiers " +
			"read no revocation lists: they accept what it signed until that expires, at the latest at " +
			timeText(
				f.now().Add(plan.DefaultSigningGrace+plan.DefaultX509SVIDTTL)) + ", or until 'entente authority " +
			"revoke --anchor' revokes the anchor too.",
		renewText,
		"The upstream has not revoked the certificate of " + x.GetId() + " yet; the leader retries: it is sealed; " +
			"and far away.",
	}, done.GetWarnings())
	require.NoError(t, alive.verify(f.bundle(home), f.now()), "verifiers accept it, as the warning states")
	upstream.mu.Lock()
	upstream.down = false
	upstream.mu.Unlock()
	require.Eventually(t, func() bool { f.wake(); return upstream.count() >= 1 }, testTimeout, pollInterval)
	f.settle()
	r, err := c.SVIDService().IssueX509SVID(caller, x509Request(t, workload(1)))
	require.NoError(t, err)
	require.NotEqual(t, x.GetId(), r.GetAuthorityId())

	// The root.
	anchor := &ententev1.RevokeAuthorityRequest{
		What: &ententev1.RevokeAuthorityRequest_Anchor{Anchor: svid.AnchorID(root[0])},
	}
	_, err = revoke(anchor)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, "or give --force")
	anchor.Force = true
	done, err = revoke(anchor)
	require.NoError(t, err)
	require.Len(t, done.GetAuthorities(), 4)
	require.Empty(t, f.bundle(home).X509Authorities())
	requireUnverified(t, alive.verify(f.bundle(home), f.now()))
	require.Eventually(t, func() bool { f.wake(); return upstream.count() >= 4 }, testTimeout, pollInterval)
	_, err = c.preparer.factory.make(ctx, plan.Situation{Now: f.now(), Settings: defaults()},
		&statev1.Domain{TrustDomain: home.Name()}, plan.Action{Do: plan.Prepare, Kind: plan.X509})
	require.ErrorContains(
		t,
		err,
		"the upstream signs below the anchor "+svid.AnchorID(
			root[0])+", which was revoked; make an issuer below another one its default",
	)
	require.False(t, slices.ContainsFunc(f.list(home), func(a *ententev1.Authority) bool {
		return a.GetKind() == ententev1.AuthorityKind_AUTHORITY_KIND_X509 &&
			a.GetState() != ententev1.AuthorityState_AUTHORITY_STATE_REVOKED
	}))
}
