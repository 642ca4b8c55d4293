package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/vaulttest"
)

// TestVaultCheckFindings: a person who tries out a configuration reads what fails, and what to do about it.
func TestVaultCheckFindings(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	mount := v.PKI(t)
	auth, roleID, secretID := v.AppRole(
		t, v.Policy(t, command(t, "vault", "policy", "--mount", mount, "--domain", "eu.example.org")), nil,
	)
	dir := t.TempDir()
	check := func(role, secret string) (string, error) {
		t.Helper()
		for name, value := range map[string]string{"role_id": role, "secret_id": secret, "entente.hcl": fmt.Sprintf(`
cluster {
  name         = "eu"
  trust_domain = "eu.example.org"
  region       = "eu-1"
}
member {
  id       = "eu-1"
  zone     = "a"
  data_dir = "%[1]s/data"
  listen   = "127.0.0.1:8443"
}
upstream "vault" {
  address   = %[2]q
  ca_file   = %[3]q
  pki_mount = %[4]q
  auth "approle" {
    mount     = %[5]q
    role_id   = "file:%[1]s/role_id"
    secret_id = "file:%[1]s/secret_id"
  }
}
authority {
  keys "disk" {
    encryption "none" {}
  }
}
`, dir, v.Address, v.CAFile, mount, auth)} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
		defer cancel()
		out, err := exec.CommandContext(ctx, binary, "vault", "check", "--config", filepath.Join(dir, "entente.hcl")).
			CombinedOutput()
		return string(out), err
	}
	output, err := check(roleID, secretID)
	require.NoError(t, err, output)

	output, err = check("somebody", secretID)
	require.EqualError(t, err, "exit status 1")
	require.Contains(
		t,
		output,
		"failure  login: log in to Vault by approle: Vault does not accept the login; check the auth block and "+
			"what it points at",
	)

	spent := v.Write(t, "auth/"+auth+"/role/entente/secret-id", nil).Data
	v.Write(
		t, "auth/"+auth+"/role/entente/secret-id-accessor/destroy",
		map[string]any{"secret_id_accessor": spent["secret_id_accessor"]},
	)
	output, err = check(roleID, spent["secret_id"].(string))
	require.EqualError(t, err, "exit status 1")
	require.Contains(t, output, "failure  login: log in to Vault by approle: Vault does not accept the login")

	v.Seal(t)
	output, err = check(roleID, secretID)
	require.EqualError(t, err, "exit status 1")
	require.Contains(t, output, "Vault is sealed or has no active node; unseal it")
	require.Contains(t, output, "with this configuration a member cannot use Vault as it must")
}
