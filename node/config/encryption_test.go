package config

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/transit"
)

func encrypted(blocks string) string {
	return validHead + "authority {\n  keys \"disk\" {\n" + blocks + "\n  }\n}\n"
}

func TestEncryptionOfKeysOnDisk(t *testing.T) {
	cfg, err := decode(t, validHead)
	require.NoError(t, err)
	require.Empty(t, cfg.Authority.Encryption, "without Vault there is no key to encrypt with")

	cfg, err = decode(t, validHead+vaultUpstream)
	require.NoError(t, err)
	require.Len(t, cfg.Authority.Encryption, 1, "Transit is the default beside an upstream in Vault")
	of := cfg.Authority.Encryption[0].Transit
	require.Equal(t, "transit", of.Mount)
	require.Equal(t, "entente-CLUSTER-eu-MEMBER-eu-1-WRAP", transit.WrappingKey(of.Prefix, of.Cluster, of.Member))
	require.Equal(t, "https://vault.example.org:8200", of.Vault.Address)

	cfg, err = decode(t, encrypted(`encryption "none" {}`)+vaultUpstream)
	require.NoError(t, err)
	require.Empty(t, cfg.Authority.Encryption)

	cfg, err = decode(t, encrypted(`
encryption "key" { key = "env:NEW" }
encryption "key" { key = "file:/etc/entente/old" }
encryption "vault_transit" {
  mount = "teams/a"
`+ownConnection+`}`))
	require.NoError(t, err)
	require.Len(t, cfg.Authority.Encryption, 3)
	require.Equal(t, "env:NEW", cfg.Authority.Encryption[0].Key.String())
	require.Equal(t, "teams/a", cfg.Authority.Encryption[2].Transit.Mount)
	require.False(t, cfg.Authority.EncryptionOff)

	cfg, err = decode(t, encrypted("encryption \"none\" {}\nencryption \"key\" { key = \"env:OLD\" }"))
	require.NoError(t, err)
	require.True(t, cfg.Authority.EncryptionOff)
}

func TestEncryptionRefusals(t *testing.T) {
	for name, c := range map[string]struct{ source, want string }{
		"in the file": {encrypted(`encryption "key" { key = "c2VjcmV0" }`),
			`authority.keys.encryption "key".key: the key must not be in this file; write "file:PATH" or "env:NAME"`},
		"in the data folder": {encrypted(`encryption "key" { key = "file:/var/lib/entente/wrap" }`),
			`/var/lib/entente/wrap is in the data folder, so that whoever has a copy of the folder has the key too; ` +
				`keep it elsewhere`},
		"no key": {encrypted(`encryption "key" {}`), `authority.keys.encryption "key".key is missing`},
		"unknown": {encrypted(`encryption "hsm" {}`),
			`"hsm" is not a place for a wrapping key; write "key", "vault_transit" or "none"`},
		"none is not first": {encrypted("encryption \"key\" { key = \"env:OLD\" }\nencryption \"none\" {}"),
			"only the first encryption applies to new keys"},
		"no connection": {encrypted(`encryption "vault_transit" {}`),
			`authority.keys.encryption "vault_transit": without an upstream "vault", the keys need a connection of ` +
				`their own`},
		"address twice": {encrypted(`encryption "vault_transit" { address = "https://v:8200" }`) + vaultUpstream,
			`the keys use the connection of upstream "vault"; leave it out here`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode(t, c.source)
			require.ErrorContains(t, err, c.want)
		})
	}
}
