package authority

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
)

// shopOf returns the active authorities of a domain, by kind.
func shopOf(f *fleet) map[ententev1.AuthorityKind]*ententev1.Authority {
	active := map[ententev1.AuthorityKind]*ententev1.Authority{}
	for _, a := range f.list(shop) {
		if a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
			active[a.GetKind()] = a
		}
	}
	return active
}

// TestRestoreBringsBackNothingThatWasRevoked: a domain that was deleted and returns from an older snapshot has what was
// revoked or tainted since in that state, even if its row was gone before it expired.
func TestRestoreBringsBackNothingThatWasRevoked(t *testing.T) {
	const x, j = ententev1.AuthorityKind_AUTHORITY_KIND_X509, ententev1.AuthorityKind_AUTHORITY_KIND_JWT
	for name, test := range map[string]struct {
		kind  ententev1.AuthorityKind
		taint bool
		after time.Duration // between the revocation and the end of the domain
		state ententev1.AuthorityState
	}{
		"jwt revoked":                  {j, false, 0, ententev1.AuthorityState_AUTHORITY_STATE_REVOKED},
		"jwt revoked, and gone since":  {j, false, 3 * time.Hour, ententev1.AuthorityState_AUTHORITY_STATE_REVOKED},
		"x509 revoked":                 {x, false, 0, ententev1.AuthorityState_AUTHORITY_STATE_REVOKED},
		"x509 revoked, and gone since": {x, false, 3 * time.Hour, ententev1.AuthorityState_AUTHORITY_STATE_REVOKED},
		"jwt tainted":                  {j, true, 3 * time.Hour, ententev1.AuthorityState_AUTHORITY_STATE_TAINTED},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := newSingle(t, nil)
			ctx := context.Background()
			_, err := c.DomainService().
				CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: shop.Name()}})
			require.NoError(t, err)
			f.settle()
			svids := f.issue(c, "spiffe://shop.example.org/till")
			var snapshot bytes.Buffer
			_, err = c.store.Snapshots().Save(ctx, &snapshot)
			require.NoError(t, err)

			is := shopOf(f)[test.kind]
			if test.taint {
				_, err = c.AuthorityService().
					TaintAuthority(ctx, &ententev1.TaintAuthorityRequest{TrustDomain: shop.Name(), Id: is.GetId()})
			} else {
				_, err = c.AuthorityService().RevokeAuthority(ctx, &ententev1.RevokeAuthorityRequest{
					TrustDomain: shop.Name(), What: &ententev1.RevokeAuthorityRequest_Id{Id: is.GetId()},
				})
			}
			require.NoError(t, err)
			f.settle()
			f.advance(test.after)
			_, err = c.DomainService().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: shop.Name()})
			require.NoError(t, err)
			f.settle()

			_, err = c.store.Snapshots().Restore(ctx, bytes.NewReader(snapshot.Bytes()))
			require.NoError(t, err)
			f.settle()
			found := false
			for _, a := range f.list(shop) {
				if a.GetId() == is.GetId() {
					found = true
					require.Equal(t, test.state, a.GetState())
				}
			}
			require.True(t, found)
			for _, svid := range svids {
				if strings.HasPrefix(svid.what, "X509") == (test.kind == x) && !test.taint {
					requireUnverified(t, svid.verify(f.bundle(shop), f.now().Add(-test.after)))
				} else {
					require.NoError(t, svid.verify(f.bundle(shop), f.now().Add(-test.after)), svid.what)
				}
			}

			// It is forgotten when no snapshot can make anything of it any more.
			f.advance(plan.DefaultCATTL + 2*plan.ClockTolerance)
			require.Eventually(t, func() bool {
				f.wake()
				rows, err := table.Distrusted.List(c.store.View(), "")
				return err == nil && len(rows) == 0
			}, testTimeout, pollInterval)
		})
	}
}

// TestRestoreLeavesOutWhatHasExpired: the keys of a snapshot that is older than their life are not published at all,
// since JWT keys carry no dates.
func TestRestoreLeavesOutWhatHasExpired(t *testing.T) {
	f, c := newSingle(t, nil)
	ctx := context.Background()
	_, err := c.DomainService().
		CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: shop.Name()}})
	require.NoError(t, err)
	f.settle()
	was := shopOf(f)
	var snapshot bytes.Buffer
	_, err = c.store.Snapshots().Save(ctx, &snapshot)
	require.NoError(t, err)
	_, err = c.DomainService().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: shop.Name()})
	require.NoError(t, err)
	f.advance(2 * plan.DefaultCATTL)
	_, err = c.store.Snapshots().Restore(ctx, bytes.NewReader(snapshot.Bytes()))
	require.NoError(t, err)
	require.NotContains(t, f.bundle(shop).JWTAuthorities(), was[ententev1.AuthorityKind_AUTHORITY_KIND_JWT].GetId())
	f.settle()
	for _, a := range f.list(shop) {
		require.Equal(t, ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE, a.GetState())
	}
	keys := f.bundle(shop).JWTAuthorities()
	require.NotContains(t, keys, was[ententev1.AuthorityKind_AUTHORITY_KIND_JWT].GetId())
	require.Len(t, keys, 1)
}
