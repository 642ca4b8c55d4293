package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/transit"
	"github.com/ententehq/entente/vaultca/vault"
)

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
	return validHead + "authority {\n  keys \"vault_transit\" {\n" + settings + "\n  }\n}\n"
}

const ownConnection = `
    address = "https://vault.example.org:8200"
    auth "kubernetes" { role = "entente" }
`

func TestKeysInTransit(t *testing.T) {
	cfg, err := decode(t, keysInTransit("")+vaultUpstream)
	require.NoError(t, err)
	require.Equal(t, KeysTransit, cfg.Authority.Keys)
	require.Equal(t, "https://vault.example.org:8200", cfg.Transit.Vault.Address, "the upstream's connection")
	require.Equal(t, "transit", cfg.Transit.Mount)
	require.Equal(t, "entente-CLUSTER-eu-MEMBER-eu-1-KEY-",
		transit.KeyPrefix(cfg.Transit.Prefix, cfg.Transit.Cluster, cfg.Transit.Member))
	require.Equal(t, "/var/lib/entente/transit", cfg.Transit.Dir)

	// The block of the upstream may come first, and the upstream may be another one.
	cfg, err = decode(t, vaultUpstream+keysInTransit(`mount = "teams/a/transit/"
    key_prefix = "prod"`))
	require.NoError(t, err)
	require.Equal(t, "teams/a/transit", cfg.Transit.Mount)
	require.Equal(t, "prod", cfg.Transit.Prefix)
	cfg, err = decode(t, keysInTransit(ownConnection)+`upstream "selfsigned" {}`)
	require.NoError(t, err)
	require.Nil(t, cfg.Vault)
	require.Equal(t, vault.Kubernetes{Role: "entente"}, cfg.Transit.Vault.Auth)
}

func TestKeysInTransitRefusals(t *testing.T) {
	for name, c := range map[string]struct{ source, want string }{
		"no connection": {keysInTransit(""), `without an upstream "vault", the keys need a connection of their own; ` +
			`set address and auth here`},
		"address twice": {
			keysInTransit(`address = "https://other:8200"`) + vaultUpstream,
			`authority.keys "vault_transit".address: the keys use the connection of upstream "vault"; leave it out ` +
				`here`,
		},
		"auth twice": {
			keysInTransit(`auth "kubernetes" { role = "x" }`) + vaultUpstream,
			`the keys use the login of upstream "vault"; leave auth out here`,
		},
		"two logins": {keysInTransit(ownConnection + `auth "token" { token = "env:T" }`),
			"has two auth blocks; a member logs in by one"},
		"no login": {keysInTransit(`address = "https://v:8200"`),
			"no auth block; one of token, approle, kubernetes and cert is needed"},
		"no https": {keysInTransit(strings.Replace(ownConnection, "https", "http", 1)),
			"is not of the form https://HOST:PORT"},
		"bad mount": {keysInTransit(ownConnection + "mount = \"a/../b\""), "is no path of a Vault mount"},
		"bad prefix": {keysInTransit(ownConnection + "key_prefix = \"A\""),
			`key_prefix "A" cannot stand in the name of a key`},
		"unknown": {keysInTransit(ownConnection + "pki_mount = \"x\""), "pki_mount"},
		"other keys": {strings.Replace(keysInTransit(""), "vault_transit", "hsm", 1),
			`"hsm" is not a place for keys; write "disk", "memory" or "vault_transit"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode(t, c.source)
			require.ErrorContains(t, err, c.want)
		})
	}
}
