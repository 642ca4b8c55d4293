package vaulttest

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

var counter atomic.Uint64

// Name returns a name that no other test in this process has.
func Name(prefix string) string { return fmt.Sprintf("%s-%d", prefix, counter.Add(1)) }

// EmptyPKI mounts a PKI engine without an issuer, and returns its path.
func (v *Vault) EmptyPKI(t testing.TB) string {
	t.Helper()
	path := Name("pki")
	require.NoError(
		t,
		v.Client(t).
			Sys().
			Mount(path, &api.MountInput{Type: "pki", Config: api.MountConfigInput{MaxLeaseTTL: "87600h"}}),
	)
	return path
}

// PKI mounts a PKI engine with a root in it, and returns its path.
func (v *Vault) PKI(t testing.TB) string {
	t.Helper()
	path := v.EmptyPKI(t)
	v.Root(t, path, "root")
	return path
}

// Root makes a root in a mount by the given issuer name, and returns its certificate.
func (v *Vault) Root(t testing.TB, mount, name string) string {
	t.Helper()
	made := v.Write(t, mount+"/root/generate/internal", map[string]any{
		"common_name": Name(
			"Root",
		), "issuer_name": name, "key_type": "ec", "key_bits": 256, "ttl": "8760h", "not_before_duration": "1h",
	})
	return made.Data["certificate"].(string)
}

// CrossSigned makes a root as Root does, which another issuer of the mount has signed too: the mount then holds two
// certificates of its key.
func (v *Vault) CrossSigned(t testing.TB, mount, name, by string) string {
	t.Helper()
	subject := Name("Root")
	made := v.Write(t, mount+"/root/generate/internal", map[string]any{
		"common_name": subject, "issuer_name": name, "key_type": "ec", "key_bits": 256, "ttl": "8760h",
		"not_before_duration": "1h",
	})
	request := v.Write(
		t,
		mount+"/intermediate/cross-sign",
		map[string]any{"common_name": subject, "key_ref": made.Data["key_id"]},
	)
	signed := v.Write(t, mount+"/issuer/"+by+"/sign-intermediate", map[string]any{
		"csr": request.Data["csr"], "common_name": subject, "use_csr_values": true, "ttl": "4380h",
		"not_before_duration": "1h",
	})
	v.Write(t, mount+"/intermediate/set-signed", map[string]any{"certificate": signed.Data["certificate"]})
	return made.Data["certificate"].(string)
}

// Below makes an issuer in a mount below an issuer of another or the same one, and returns the certificate of the
// issuer above. The issuer above stays unknown to the mount unless it is the same.
func (v *Vault) Below(t testing.TB, mount, name, above, issuer string) string {
	t.Helper()
	request := v.Write(
		t,
		mount+"/intermediate/generate/internal",
		map[string]any{"common_name": Name("Issuing"), "key_type": "ec", "key_bits": 256},
	)
	signed := v.Write(t, above+"/issuer/"+issuer+"/sign-intermediate", map[string]any{
		"csr": request.Data["csr"], "common_name": Name("Issuing"), "ttl": "4380h", "max_path_length": 1,
	})
	imported := v.Write(t, mount+"/intermediate/set-signed", map[string]any{"certificate": signed.Data["certificate"]})
	id := imported.Data["imported_issuers"].([]any)[0].(string)
	v.Write(t, mount+"/issuer/"+id, map[string]any{"issuer_name": name})
	return signed.Data["issuing_ca"].(string)
}

// SetDefault makes an issuer the default of its mount.
func (v *Vault) SetDefault(t testing.TB, mount, issuer string) {
	t.Helper()
	v.Write(t, mount+"/config/issuers", map[string]any{"default": issuer})
}

// Policy writes a policy, and returns its name.
func (v *Vault) Policy(t testing.TB, rules string) string {
	t.Helper()
	name := Name("policy")
	require.NoError(t, v.Client(t).Sys().PutPolicy(name, rules))
	return name
}

// Token makes a token with a policy and nothing else, not even Vault's default policy.
func (v *Vault) Token(t testing.TB, policy, ttl string) string {
	t.Helper()
	made, err := v.Client(t).
		Auth().
		Token().
		Create(&api.TokenCreateRequest{Policies: []string{policy}, NoDefaultPolicy: true, TTL: ttl, NoParent: true})
	require.NoError(t, err)
	return made.Auth.ClientToken
}

// AppRole makes a role with a policy and nothing else, and returns the path of the auth method, role id and secret id.
func (v *Vault) AppRole(t testing.TB, policy string, settings map[string]any) (mount, roleID, secretID string) {
	t.Helper()
	mount = v.EnableAuth(t, "approle")
	role := map[string]any{"token_policies": policy, "token_no_default_policy": true, "token_ttl": "1h"}
	for name, value := range settings {
		role[name] = value
	}
	v.Write(t, "auth/"+mount+"/role/entente", role)
	found, err := v.Client(t).Logical().Read("auth/" + mount + "/role/entente/role-id")
	require.NoError(t, err)
	secret := v.Write(t, "auth/"+mount+"/role/entente/secret-id", nil)
	return mount, found.Data["role_id"].(string), secret.Data["secret_id"].(string)
}

// EnableAuth mounts an auth method, and returns its path.
func (v *Vault) EnableAuth(t testing.TB, kind string) string {
	t.Helper()
	mount := Name(kind)
	require.NoError(t, v.Client(t).Sys().EnableAuthWithOptions(mount, &api.EnableAuthOptions{Type: kind}))
	return mount
}
