package transit

import (
	"crypto"
	"crypto/rand"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// transitWorked returns the operations with keys in Transit that work.
func transitWorked(t *testing.T, v *vaulttest.Vault, config Config, rules string) []string {
	t.Helper()
	config.Vault.Auth = vault.Token{Token: secretText(v.Token(t, v.Policy(t, rules), "1h"))}
	k := openTransit(t, config)
	var all []string
	note := func(what string, err error) {
		if err == nil {
			all = append(all, what)
		}
	}
	s, _, err := k.caller.Session(t.Context())
	note("log in", err)
	if err == nil {
		_, err = k.caller.Renew(t.Context(), s)
		note("renew", err)
	}
	e := probe(config, config.Member)
	e.Public, err = makeKey(t.Context(), k.caller, e)
	note("make", err)
	if err != nil { // so that the rest has something to try
		v.Write(t, config.Mount+"/keys/"+e.Key, keyParameters())
	}
	_, err = signDigest(t.Context(), k.caller, k.config.SignTimeout, e, digest[:])
	note("sign", err)
	_, err = readKey(t.Context(), k.caller, e)
	note("read", err)
	note("delete", deleteKey(t.Context(), k.caller, e))
	return all
}

func TestTransitPolicyIsEnoughAndEachRightIsNeeded(t *testing.T) {
	v := vaulttest.Shared(t)
	config := transitFor(t, v, v.Transit(t), "eu-1")
	of := PolicyFor{Mount: config.Mount, Cluster: "eu", Member: "eu-1"}
	whole := policyText(of)
	everything := []string{"log in", "renew", "make", "sign", "read", "delete"}
	require.Equal(t, everything, transitWorked(t, v, config, whole))

	keys, sign := Rights(of)[0], Rights(of)[1]
	login := vault.PrintRights(vault.LoginRights())
	with := func(capabilities string) string {
		r := keys
		r.Capabilities = capabilities
		return vault.PrintRights([]vault.Right{r, sign}) + login
	}
	for _, c := range []struct {
		without, rules string
		lost           []string
	}{
		{"sign", vault.PrintRights([]vault.Right{keys}) + login, []string{"sign"}},
		{"update of keys", with(`"read", "delete"`), []string{"make", "delete"}},
		{"read of keys", with(`"update", "delete"`), []string{"read"}},
		{"delete of keys", with(`"update", "read"`), []string{"delete"}},
	} {
		t.Run(c.without, func(t *testing.T) {
			kept := slices.DeleteFunc(
				slices.Clone(everything),
				func(what string) bool { return slices.Contains(c.lost, what) },
			)
			require.Equal(t, kept, transitWorked(t, v, config, c.rules))
		})
	}
}

func TestTransitPolicyPinsEachParameter(t *testing.T) {
	v := vaulttest.Shared(t)
	config := transitFor(t, v, v.Transit(t), "eu-1")
	k := openTransit(t, config)
	e := k.entryOf(t, makes(t, k, "a"))
	for path, settings := range map[string][]map[string]any{
		"keys/" + e.Key: {{"exportable": true}, {"allow_plaintext_backup": true}, {"type": "rsa-2048"},
			{"auto_rotate_period": "1h"}},
		"keys/" + e.Key + "/config": {{"exportable": true}, {"allow_plaintext_backup": true},
			{"min_encryption_version": 1}},
		"sign/" + e.Key:               {{"prehashed": false}, {"marshaling_algorithm": "jws"}, {"key_version": "2"}},
		"export/signing-key/" + e.Key: {{}}, "keys/" + KeyPrefix("", "eu", "eu-2") + "a": {{}},
	} {
		for _, parameters := range settings {
			_, err := writeTo(t, k.caller, config.Mount+"/"+path, parameters)
			require.ErrorIs(t, err, vault.ErrDenied, "%s %v", path, parameters)
		}
	}
}

func TestCheckTransitFindings(t *testing.T) {
	v := vaulttest.Shared(t)
	config := transitFor(t, v, v.Transit(t), "eu-1")
	for _, f := range Check(t.Context(), config) {
		require.Equal(t, vault.OK, f.Severity, "%s: %s", f.Subject, f.Detail)
	}
	require.Empty(t, v.TransitKeys(t, config.Mount), "the check leaves nothing behind")
	find := func(c Config, rules, subject string) string {
		t.Helper()
		if rules != "" {
			c.Vault.Auth = vault.Token{Token: secretText(v.Token(t, v.Policy(t, rules), "1h"))}
		}
		findings := Check(t.Context(), c)
		i := slices.IndexFunc(
			findings,
			func(f vault.Finding) bool { return f.Subject == subject && f.Severity != vault.OK },
		)
		require.GreaterOrEqual(t, i, 0, findings)
		return findings[i].Detail
	}
	const wide = `path "*" { capabilities = ["create", "read", "update", "delete"] }`
	require.Contains(t, find(config, wide, "transit rights"), "the token could make keys that can be exported")
	require.Empty(t, v.TransitKeys(t, config.Mount))

	missing := config
	missing.Mount = "nowhere"
	require.Contains(
		t,
		find(missing, wide, "transit keys"),
		"is a Transit secrets engine mounted at nowhere? `vault secrets enable -path=nowhere transit` does that",
	)
	require.Contains(
		t,
		find(missing, "", "transit keys"),
		"the right for nowhere/keys/entente-CLUSTER-eu-MEMBER-eu-1-KEY-* is missing, or the mount is",
	)

	all := Rights(PolicyFor{Mount: config.Mount, Cluster: "eu"})
	login := vault.PrintRights(vault.LoginRights())
	require.Contains(
		t,
		find(config, vault.PrintRights(all)+login, "transit rights"),
		"the token reaches the keys of other members too",
	)
	require.Contains(
		t,
		find(config, vault.PrintRights(all[:1])+login, "transit signing"),
		"the right for "+config.Mount+"/sign/entente-CLUSTER-eu-MEMBER-eu-1-KEY-* is missing",
	)
	stays := all[0]
	stays.Capabilities = `"update", "read"`
	require.Contains(
		t,
		find(config, vault.PrintRights([]vault.Right{stays, all[1]})+login, "transit keys"),
		"Delete it by hand",
	)

	wrong := config
	wrong.Vault.Auth = vault.AppRole{RoleID: secretText("no"), SecretID: secretText("no")}
	require.Contains(t, find(wrong, "", "login"), vault.ErrLogin.Error())
}

// entryOf is the index's entry of a key.
func (t *Store) entryOf(tb testing.TB, key crypto.Signer) entry {
	tb.Helper()
	k, ok := key.(*signingKey)
	require.True(tb, ok)
	_, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	require.NoError(tb, err)
	return k.entry
}
