package inspect

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const cluster = `
cluster {
  name         = "eu"
  trust_domain = "eu.example.org"
  region       = "eu-west-1"
}
member {
  id   = "eu-1"
  zone = "eu-west-1a"
}
`

const vaultUpstream = `
upstream "vault" {
  address   = "https://vault.example.org:8200"
  ca_file   = "/etc/entente/vault-ca.pem"
  pki_mount = "pki_eu"
  auth "approle" {
    role_id   = "env:ROLE"
    secret_id = "env:SECRET"
  }
}
`

func keysInTransit(settings string) string {
	return cluster + "authority {\n  keys \"vault_transit\" {\n" + settings + "\n  }\n}\n"
}

func TestVaultPolicyOfAConfiguration(t *testing.T) {
	write := func(source string) string {
		path := filepath.Join(t.TempDir(), "entente.hcl")
		require.NoError(t, os.WriteFile(path, []byte(source), 0o600))
		return path
	}
	both, err := VaultPolicyOf(write(keysInTransit("") + vaultUpstream))
	require.NoError(t, err)
	flags, err := VaultPolicy(VaultPolicyFor{
		PKIMount: "pki_eu", TrustDomain: "eu.example.org", TransitMount: "transit", Cluster: "eu", Member: "eu-1",
	})
	require.NoError(t, err)
	require.Equal(t, flags, both)
	require.Contains(t, both, `path "pki_eu/issuer/default/sign-intermediate"`)
	require.Contains(t, both, `path "transit/sign/entente-CLUSTER-eu-MEMBER-eu-1-KEY-*"`)
	alone, err := VaultPolicyOf(write(keysInTransit(`
    address = "https://vault.example.org:8200"
    auth "kubernetes" { role = "entente" }
`)))
	require.NoError(t, err)
	require.NotContains(t, alone, "sign-intermediate")
	_, err = VaultPolicyOf(write(cluster))
	require.ErrorContains(t, err, "has neither a block `upstream \"vault\"` nor `keys \"vault_transit\"`")
	_, err = VaultPolicy(VaultPolicyFor{TransitMount: "transit"})
	require.EqualError(t, err, "the names of keys in Transit begin with the cluster's name; give it with --cluster")
}
