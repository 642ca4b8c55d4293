package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// command runs the built command and returns what it printed.
func command(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
	require.NoError(t, err, "entente %v: %s", args, out)
	return string(out)
}

// belowVault is the configuration of members whose authorities are below a mount of Vault, and whose keys on disk a
// Transit mount wraps, with the policies that the command prints and nothing more.
func belowVault(t *testing.T, v *vaulttest.Vault, mount, domain string) string {
	t.Helper()
	cluster, _, _ := strings.Cut(domain, ".")
	transit := v.Transit(t)
	auth, roleID, secretID := v.AppRole(t, v.Policy(t,
		command(t, "vault", "policy", "--mount", mount, "--domain", domain)+
			command(t, "vault", "policy", "--transit-mount", transit, "--cluster", cluster, "--wrapping")), nil)
	dir := t.TempDir()
	for name, value := range map[string]string{"role_id": roleID, "secret_id": secretID} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600))
	}
	return quick + fmt.Sprintf(`
upstream "vault" {
  address   = %q
  ca_file   = %q
  pki_mount = %q
  auth "approle" {
    mount     = %q
    role_id   = "file:%[5]s/role_id"
    secret_id = "file:%[5]s/secret_id"
  }
}
authority {
  keys "disk" {
    encryption "vault_transit" { mount = %[6]q }
  }
}
`, v.Address, v.CAFile, mount, auth, dir, transit)
}

func parsePEM(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	require.NotNil(t, block)
	c, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return c
}

func TestMembersTakeTheirCertificatesFromVault(t *testing.T) {
	v := vaulttest.Start(t)
	mount := v.EmptyPKI(t)
	root := parsePEM(t, v.Root(t, mount, "root"))
	c := newCluster(t, "eu", 3, belowVault(t, v, mount, "eu.example.org"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*waitLimit)
	defer cancel()
	require.Contains(
		t, command(t, "vault", "check", "--config", filepath.Join(c.members[0].dir, "entente.hcl")), "signing",
	)

	// Three members, each with a certificate of its own, below one anchor.
	first := issue(t, c.members[1], "spiffe://eu.example.org/web")
	require.Len(t, first.bundle.X509Authorities(), 1)
	require.True(t, first.bundle.X509Authorities()[0].Equal(root))
	_, _, err := x509svid.Verify(first.svid.Certificates, first.bundle)
	require.NoError(t, err)

	// While Vault is sealed, what was signed before goes on signing.
	v.Seal(t)
	sealed := issue(t, c.members[2], "spiffe://eu.example.org/web")
	_, _, err = x509svid.Verify(sealed.svid.Certificates, first.bundle)
	require.NoError(t, err)
	v.Unseal(t)

	// A new root is published when it is there, before anybody signs below it, and an SVID of before verifies all
	// along, by both the bundle of the moment and that of a reader which is one version behind.
	newRoot := parsePEM(t, v.Root(t, mount, "root-2"))
	v.SetDefault(t, mount, "root-2")
	known := first.bundle
	eventually(t, "the new root is in the bundle", func() error {
		next := issue(t, c.members[0], "spiffe://eu.example.org/web")
		_, chains, err := x509svid.Verify(next.svid.Certificates, known)
		require.NoError(t, err)
		require.False(t, chains[0][len(chains[0])-1].Equal(newRoot), "signed below a root that no verifier has yet")
		known = next.bundle
		for _, anchor := range known.X509Authorities() {
			if anchor.Equal(newRoot) {
				return nil
			}
		}
		return fmt.Errorf("it holds %d roots", len(known.X509Authorities()))
	})
	require.Contains(t, c.members[1].command("authority", "anchors"), "upstream")
	_, err = c.members[0].socket().Authorities().RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{})
	require.NoError(t, err)
	eventually(t, "SVIDs are signed below the new root", func() error {
		next := issue(t, c.members[0], "spiffe://eu.example.org/web")
		_, chains, err := x509svid.Verify(next.svid.Certificates, known)
		require.NoError(t, err, "signed by what its bundle of a moment ago does not verify")
		known = next.bundle
		_, _, err = x509svid.Verify(first.svid.Certificates, known)
		require.NoError(t, err, "what was signed before verifies no more")
		top := chains[0][len(chains[0])-1]
		if !top.Equal(newRoot) {
			return fmt.Errorf("still below %s", top.Subject)
		}
		return nil
	})
}
