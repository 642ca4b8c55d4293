package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/vaultca"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// looksOften has a member look at Vault's anchors more often than it does by itself, so that a test does not wait for
// it.
func looksOften(vault *vaultca.Config, _ *authority.Config) {
	vault.PollInterval = 100 * time.Millisecond
}

// roots waits until the anchors of the domain are as described, in words such as "new published, old published".
func (a *ailing) roots(names map[string]string, want string) {
	a.t.Helper()
	eventually(a.t, "the anchors are "+want, func() error {
		list, err := a.manager.AuthorityService().ListAnchors(a.t.Context(), &ententev1.ListAnchorsRequest{})
		if err != nil {
			return err
		}
		var is []string
		for _, anchor := range list.GetAnchors() {
			is = append(
				is,
				names[anchor.GetKeyId()]+" "+strings.ToLower(
					strings.TrimPrefix(anchor.GetState().String(), "ANCHOR_STATE_")),
			)
		}
		slices.Sort(is)
		if got := strings.Join(is, ", "); got != want {
			return fmt.Errorf("they are %s", got)
		}
		return nil
	})
}

// rooted makes another root in the member's mount, and returns the names of both by key ID, and that of the new one.
func (a *ailing) rooted() (names map[string]string, fresh string) {
	a.t.Helper()
	names = map[string]string{}
	list, err := a.manager.AuthorityService().ListAnchors(a.t.Context(), &ententev1.ListAnchorsRequest{})
	require.NoError(a.t, err)
	require.Len(a.t, list.GetAnchors(), 1)
	names[list.GetAnchors()[0].GetKeyId()] = "old"
	fresh = svid.AnchorID(parsePEM(a.t, a.v.Root(a.t, a.mount, "fresh")))
	names[fresh] = "new"
	return names, fresh
}

// rotated rotates the authorities, and waits until the newest signs.
func (a *ailing) rotated(before string) *ententev1.Authority {
	a.t.Helper()
	_, err := a.manager.AuthorityService().RotateAuthorities(a.t.Context(), &ententev1.RotateAuthoritiesRequest{})
	require.NoError(a.t, err)
	return a.newest(before, ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE)
}

// TestTheOldRootOfVaultLeaves plays the whole life of a change of roots on a clock that the test sets: the new one is
// published before anything is signed below it, the old one stays while something below it may be alive, and then
// leaves. SVIDs are issued all along.
func TestTheOldRootOfVaultLeaves(t *testing.T) {
	t.Parallel()
	a := below(t, vaulttest.Start(t), false, 0, "", looksOften)
	first := a.newest("", ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE)
	names, fresh := a.rooted()
	served := a.keepIssuing(false)
	a.v.SetDefault(t, a.mount, "fresh")
	a.roots(names, "new published, old published")
	require.Equal(
		t, first.GetId(), a.newest("", ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE).GetId(),
		"signed below a root that no verifier has yet",
	)
	a.others() // who reads the bundle has done so by the time that passes now
	a.pass(plan.HintsBeforeUse * time.Minute)
	require.Equal(t, fresh, a.rotated(first.GetId()).GetKeyId())
	a.roots(names, "new published, old published")
	a.pass(time.Hour) // the signing grace; an SVID of ten minutes may be alive
	a.roots(names, "new published, old published")
	a.pass(11 * time.Minute)
	a.roots(names, "new published")
	served()
	require.Zero(t, a.log.lines("the chain of statements"), "a domain begins with all that it needs in one version")
	a.logged("drop anchor", "the upstream no longer lists it, and nothing that is alive was signed below it")
}

// TestARootOfVaultWaitsForApproval: nothing is signed below it before, the present authorities keep signing, and the
// log names what to do.
func TestARootOfVaultWaitsForApproval(t *testing.T) {
	t.Parallel()
	a := below(
		t,
		vaulttest.Start(t),
		false,
		0,
		"",
		looksOften,
		func(_ *vaultca.Config, own *authority.Config) { own.AnchorApproval = true },
	)
	first := a.newest("", ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE)
	names, fresh := a.rooted()
	served := a.keepIssuing(false)
	a.v.SetDefault(t, a.mount, "fresh")
	a.roots(names, "new pending, old published")
	a.measures(1, "entente_authority_anchors", map[string]string{"state": "pending"})
	_, err := a.manager.AuthorityService().RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{})
	require.NoError(t, err)
	a.logged("entente authority approve "+fresh, "the anchor waits for approval")
	require.Equal(t, first.GetId(), a.newest("", ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE).GetId())

	_, err = a.manager.AuthorityService().
		ApproveAnchor(t.Context(), &ententev1.ApproveAnchorRequest{TrustDomain: ailingDomain.Name(), Anchor: fresh})
	require.NoError(t, err)
	a.roots(names, "new published, old published")
	a.newest(first.GetId(), ententev1.AuthorityState_AUTHORITY_STATE_PREPARED)
	a.others() // who reads the bundle has done so by the time that passes now
	a.pass(plan.HintsBeforeUse * time.Minute)
	require.Equal(t, fresh, a.newest(first.GetId(), ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE).GetKeyId())
	served()
}
