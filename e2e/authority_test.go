package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// activeOf returns the active X.509 authorities of a cluster.
func activeOf(t *testing.T, p *process) []*ententev1.Authority {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	list, err := p.socket().Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{
		Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_LINEARIZABLE},
	})
	require.NoError(t, err)
	return slices.DeleteFunc(list.GetAuthorities(), func(a *ententev1.Authority) bool {
		return a.GetKind() != ententev1.AuthorityKind_AUTHORITY_KIND_X509 ||
			a.GetState() != ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE
	})
}

// everySigner waits until each member has an active X.509 authority.
func everySigner(t *testing.T, c *cluster) []*ententev1.Authority {
	t.Helper()
	var active []*ententev1.Authority
	eventually(t, "every member signs", func() error {
		if active = activeOf(t, c.members[0]); len(active) != len(c.members) {
			return fmt.Errorf("%d of %d", len(active), len(c.members))
		}
		return nil
	})
	return active
}

// TestHoldersLearnOfATaintWithinASecond: on every member, over a watch; and the members' own SVIDs are replaced.
func TestHoldersLearnOfATaintWithinASecond(t *testing.T) {
	c := newCluster(t, "eu", 3, quick)
	tainted := everySigner(t, c)[0]
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	told := make(chan time.Time, len(c.members))
	for _, p := range c.members {
		stream, err := p.socket().SVIDs().WatchAuthorities(ctx, &ententev1.WatchAuthoritiesRequest{})
		require.NoError(t, err)
		first, err := stream.Recv()
		require.NoError(t, err)
		require.Empty(t, first.GetDistrusted())
		go func() {
			for {
				r, err := stream.Recv()
				if err != nil {
					return
				}
				if len(r.GetDistrusted()) == 1 && r.GetDistrusted()[0].GetId() == tainted.GetId() {
					told <- time.Now()
				}
			}
		}()
	}
	api := c.members[1].socket().Authorities()
	_, err := api.TaintAuthority(ctx, &ententev1.TaintAuthorityRequest{TrustDomain: c.domain, Id: tainted.GetId()})
	require.NoError(t, err)
	done := time.Now()
	for range c.members {
		select {
		case at := <-told:
			require.Less(t, at.Sub(done), time.Second)
		case <-ctx.Done():
			t.Fatal("a subscriber was not notified")
		}
	}
	for _, p := range c.members {
		holder := issue(t, p, "spiffe://eu.example.org/web")
		eventually(t, "its own SVID is of an authority that is trusted", func() error {
			for _, a := range activeOf(t, p) {
				if a.GetId() == tainted.GetId() {
					return fmt.Errorf("it is active still")
				}
			}
			presented := serverCertificate(t, p, holder)
			for _, d := range distrusted(t, p) {
				if fmt.Sprintf("%x", presented.AuthorityKeyId) == d.GetSubjectKeyId() {
					return fmt.Errorf("it presents what the tainted one signed")
				}
			}
			return nil
		})
	}

	// Revoked: the bundle is without its root with the very next reading.
	_, err = api.RevokeAuthority(
		ctx,
		&ententev1.RevokeAuthorityRequest{
			TrustDomain: c.domain,
			What:        &ententev1.RevokeAuthorityRequest_Id{Id: tainted.GetId()},
		},
	)
	require.NoError(t, err)
	list, err := api.ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{})
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(list.GetAuthorities(), func(a *ententev1.Authority) bool {
		return a.GetId() == tainted.GetId() && a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_REVOKED
	}))
	for _, anchor := range issue(t, c.members[1], "spiffe://eu.example.org/web").bundle.X509Authorities() {
		require.NotEqual(t, tainted.GetKeyId(), fmt.Sprintf("%x", anchor.SubjectKeyId))
	}
}

// distrusted is the first message of a watch.
func distrusted(t *testing.T, p *process) []*ententev1.DistrustedAuthority {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	stream, err := p.socket().SVIDs().WatchAuthorities(ctx, &ententev1.WatchAuthoritiesRequest{})
	require.NoError(t, err)
	first, err := stream.Recv()
	require.NoError(t, err)
	return first.GetDistrusted()
}

// TestRevokedInVaultToo: with the policy that the command prints, Vault puts the certificate on its list, also when it
// was sealed at the time; its root stays in the bundle until it is revoked by name.
func TestRevokedInVaultToo(t *testing.T) {
	v := vaulttest.Start(t)
	mount := v.EmptyPKI(t)
	v.Root(t, mount, "root")
	c := newCluster(t, "eu", 1, belowVault(t, v, mount, "eu.example.org"))
	p := c.members[0]
	socket := "--socket=" + filepath.Join(p.dir, "data", "admin.sock")
	everySigner(t, c)
	web := issue(t, p, "spiffe://eu.example.org/web")
	serial := strings.TrimSuffix(
		strings.ReplaceAll(fmt.Sprintf("% x", web.svid.Certificates[1].SerialNumber.Bytes()), " ", ":"), ":",
	)
	onList := func(serial string) bool {
		secret, err := v.Client(t).Logical().ReadWithContext(t.Context(), mount+"/cert/"+serial)
		require.NoError(t, err)
		return fmt.Sprint(secret.Data["revocation_time"]) != "0"
	}
	require.False(t, onList(serial))

	first := everySigner(t, c)[0]
	said := command(t, "authority", "revoke", first.GetId(), "--yes", socket)
	require.Contains(t, said, "The upstream has put the certificate of "+first.GetId()+" on its revocation list.")
	require.Contains(t, said, "SPIFFE verifiers read no revocation lists: they accept what it signed until that "+
		"expires")
	require.True(t, onList(serial))
	next := issue(t, p, "spiffe://eu.example.org/web")
	require.NotEqual(t, web.svid.Certificates[1].Raw, next.svid.Certificates[1].Raw)
	_, _, err := x509svid.Verify(web.svid.Certificates, next.bundle)
	require.NoError(t, err, "the SVID still verifies, as the output states")

	// While Vault is sealed the revocation waits. It is made when Vault is back.
	serial = strings.TrimSuffix(
		strings.ReplaceAll(fmt.Sprintf("% x", next.svid.Certificates[1].SerialNumber.Bytes()), " ", ":"), ":",
	)
	second := everySigner(t, c)[0]
	v.Seal(t)
	require.Contains(
		t, command(t, "authority", "revoke", second.GetId(), "--yes", socket),
		"The upstream has not revoked the certificate of "+second.GetId()+" yet; the leader retries: ",
	)
	v.Unseal(t)
	eventually(t, "Vault has the revocation", func() error {
		if !onList(serial) {
			return fmt.Errorf("it is not on the list")
		}
		return nil
	})

	// The root by name, once another one stands above an active authority.
	old := everySigner(t, c)[0].GetKeyId()
	v.Root(t, mount, "root-2")
	v.SetDefault(t, mount, "root-2")
	command(t, "authority", "rotate", socket)
	eventually(t, "an authority below the new root is active", func() error {
		if active := activeOf(t, p); len(active) != 1 || active[0].GetKeyId() == old {
			return fmt.Errorf("%v", active)
		}
		return nil
	})
	require.Contains(
		t, command(t, "authority", "revoke", "--anchor", old, "--yes", socket),
		"What verified it left the bundle with sequence ",
	)
	last := issue(t, p, "spiffe://eu.example.org/web")
	_, _, err = x509svid.Verify(last.svid.Certificates, last.bundle)
	require.NoError(t, err)
	_, _, err = x509svid.Verify(next.svid.Certificates, last.bundle)
	require.ErrorContains(t, err, "certificate signed by unknown authority")
}
