package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// keysInVault is the configuration of members that keep their keys in a Transit mount and sign below roots of their
// own, with the policy that the command prints and nothing more.
func keysInVault(t *testing.T, v *vaulttest.Vault, mount, cluster string) string {
	t.Helper()
	auth, roleID, secretID := v.AppRole(
		t, v.Policy(t, command(t, "vault", "policy", "--transit-mount", mount, "--cluster", cluster)), nil,
	)
	dir := t.TempDir()
	for name, value := range map[string]string{"role_id": roleID, "secret_id": secretID} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600))
	}
	return quick + fmt.Sprintf(`
authority {
  keys "vault_transit" {
    mount   = %q
    address = %q
    ca_file = %q
    auth "approle" {
      mount     = %q
      role_id   = "file:%[5]s/role_id"
      secret_id = "file:%[5]s/secret_id"
    }
  }
}
`, mount, v.Address, v.CAFile, auth, dir)
}

// issueToken gets a JWT-SVID from a member, checks it against a bundle that was read after it, and returns its
// authority.
func issueToken(t *testing.T, c *cluster, p *process) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	answer, err := p.socket().SVIDs().IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{
		SpiffeId: "spiffe://" + c.domain + "/web", Audience: []string{"db"},
	})
	if err != nil {
		return "", err
	}
	_, err = jwtsvid.ParseAndValidate(
		answer.GetToken(), issue(t, p, "spiffe://"+c.domain+"/web").bundle, []string{"db"},
	)
	require.NoError(t, err)
	return answer.GetAuthorityId(), nil
}

// requireNoPrivateKeys holds that nothing below a member's data folder is a private key but its identity, as PEM or as
// DER.
func requireNoPrivateKeys(t *testing.T, dir string) {
	t.Helper()
	files := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the member runs, and puts files in place under another name
		}
		if err != nil || !d.Type().IsRegular() || d.Name() == "identity.pem" {
			return err
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		require.NoError(t, err)
		files++
		// RFC 5915: version 1 and an octet string of 32 bytes, which is the number that makes the key.
		for _, sign := range []string{"PRIVATE KEY", "\x02\x01\x01\x04\x20"} {
			require.False(t, bytes.Contains(raw, []byte(sign)), "%s holds a private key", path)
		}
		return nil
	}))
	require.NotZero(t, files, "there was something to look at")
}

func TestMembersSignWithKeysThatNeverLeaveVault(t *testing.T) {
	v := vaulttest.Start(t)
	mount := v.Transit(t)
	c := newCluster(t, "eu", 2, keysInVault(t, v, mount, "eu"))
	first := c.members[0]
	require.Contains(
		t, command(t, "vault", "check", "--config", filepath.Join(first.dir, "entente.hcl")),
		"transit signing: a signature takes",
	)

	for _, p := range c.members {
		w := issue(t, p, "spiffe://eu.example.org/web")
		_, _, err := x509svid.Verify(w.svid.Certificates, w.bundle)
		require.NoError(t, err)
		_, err = issueToken(t, c, p)
		require.NoError(t, err)
		requireNoPrivateKeys(t, filepath.Join(p.dir, "data"))
		require.NoDirExists(t, filepath.Join(p.dir, "data", "keys"))
	}
	for _, name := range v.TransitKeys(t, mount) {
		require.True(t, strings.HasPrefix(name, "entente-CLUSTER-eu-MEMBER-eu-"), name)
	}

	// While Vault is sealed no member signs, and the error names the reason; a member that starts then keeps its
	// authorities.
	v.Seal(t)
	_, err := issueToken(t, c, first)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Contains(t, err.Error(), "in Vault's Transit: ")
	first.stop()
	first.run()
	v.Unseal(t)
	first.waitReady()
	var used string
	eventually(t, "members sign again", func() (err error) {
		used, err = issueToken(t, c, first)
		return err
	})
	require.NotEmpty(t, used)
	for _, a := range listAuthorities(t, first) {
		require.Nil(t, a.GetRetireTime(), "authority %s was retired by an outage", a.GetId())
	}

	// A deleted key is detected, and its authority replaced.
	for _, name := range v.TransitKeys(t, mount) {
		if strings.Contains(name, "-KEY-"+used+"-") {
			v.DeleteTransitKey(t, mount, name)
		}
	}
	eventually(t, "the authority is retired", func() error {
		if _, err := issueToken(t, c, first); err != nil {
			return err
		}
		for _, a := range listAuthorities(t, first) {
			if a.GetId() == used && a.GetState() != ententev1.AuthorityState_AUTHORITY_STATE_RETIRING {
				return fmt.Errorf("it is %s", a.GetState())
			}
		}
		return nil
	})
}

func listAuthorities(t testing.TB, p *process) []*ententev1.Authority {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	list, err := p.socket().Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{})
	require.NoError(t, err)
	return list.GetAuthorities()
}
