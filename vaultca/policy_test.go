package vaultca

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/transit"
	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

func copyFile(from, to string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o600)
}

// worked returns the operations of a member that work with a token.
func worked(t *testing.T, v *vaulttest.Vault, mount, rules string) []string {
	t.Helper()
	config := configFor(t, v, mount, nil)
	config.Auth = vault.Token{Token: text(v.Token(t, v.Policy(t, rules), "1h"))}
	u := open(t, config)
	var all []string
	note := func(what string, err error) {
		if err == nil {
			all = append(all, what)
		}
	}
	s, _, err := u.caller.Session(t.Context())
	note("log in", err)
	if err == nil {
		_, err = u.caller.Renew(t.Context(), s)
		note("renew", err)
	}
	signed, err := u.SignCA(t.Context(), signRequest(t))
	note("sign", err)
	if err != nil {
		signed = signs(t, open(t, configFor(t, v, mount, nil)))
	}
	note("revoke", u.Revoke(t.Context(), domain, signed.Chain[0]))
	k := &pkiCheck{Checker: vault.Checker{Caller: u.caller}, config: u.config}
	k.roles(t.Context(), domain)
	switch detail := k.Findings[0].Detail; {
	case strings.Contains(detail, "cannot see"):
	case strings.Contains(detail, "cannot read"):
		all = append(all, "list roles")
	default:
		all = append(all, "list roles", "read roles")
	}
	return all
}

func TestPolicyIsEnoughAndEachRightIsNeeded(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	v.Write(t, mount+"/roles/web", map[string]any{"allowed_domains": "example.org"})
	all := append(rights(PolicyFor{Mount: mount, TrustDomain: domain}), vault.LoginRights()...)
	everything := []string{"log in", "renew", "sign", "revoke", "list roles", "read roles"}
	require.Equal(t, everything, worked(t, v, mount, vault.PrintRights(all)))

	lost := map[string][]string{
		mount + "/issuer/default/sign-intermediate": {"sign"},
		mount + "/revoke":        {"revoke"},
		mount + "/roles":         {"list roles", "read roles"},
		mount + "/roles/*":       {"read roles"},
		"auth/token/renew-self":  {"renew"},
		"auth/token/lookup-self": everything,
	}
	require.Len(t, lost, len(all))
	for i, r := range all {
		t.Run(r.Path, func(t *testing.T) {
			without := slices.Delete(slices.Clone(all), i, i+1)
			kept := slices.DeleteFunc(
				slices.Clone(everything),
				func(what string) bool { return slices.Contains(lost[r.Path], what) },
			)
			require.ElementsMatch(t, kept, worked(t, v, mount, vault.PrintRights(without)))
		})
	}
}

func TestPolicyPinsEachParameter(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	u := open(t, configFor(t, v, mount, nil))
	for name, value := range map[string]any{
		"uri_sans": "spiffe://us.example.org", "use_csr_values": true, "max_path_length": "1",
		"common_name":          "x.example.org",
		"exclude_cn_from_sans": false, "not_before_duration": "48h", "alt_names": "evil.example.org",
		"not_after": "9999-12-31T23:59:59Z",
	} {
		parameters := signParameters(domain, signRequest(t).CSR, 24*3600e9)
		parameters[name] = value
		_, err := signIntermediate(t.Context(), u.caller, u.config.Mounts[domain], "default", parameters)
		require.ErrorIs(t, err, vault.ErrDenied, name)
	}
	signs(t, u)
}

func TestPolicyAsPrinted(t *testing.T) {
	printed, err := Policies([]PolicyFor{{Mount: "pki_eu", Issuers: []string{"eu-2026"}, TrustDomain: domain}}, nil)
	require.NoError(t, err)
	want, err := os.ReadFile("testdata/policy.hcl")
	require.NoError(t, err)
	require.Equal(t, string(want), printed)
	for _, bad := range []string{"", "a\"}", "a/../b", "/a", "a b", "*"} {
		_, err := Policies([]PolicyFor{{Mount: bad}}, nil)
		require.ErrorContains(t, err, fmt.Sprintf("%q is no path of a Vault mount", bad))
	}
}

func TestCheckFindings(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	config := configFor(t, v, mount, nil)
	for _, f := range Check(t.Context(), config) {
		require.Equal(t, vault.OK, f.Severity, "%s: %s", f.Subject, f.Detail)
	}
	find := func(c Config, subject string) vault.Finding {
		t.Helper()
		findings := Check(t.Context(), c)
		i := slices.IndexFunc(
			findings,
			func(f vault.Finding) bool { return f.Subject == subject && f.Severity != vault.OK },
		)
		require.GreaterOrEqual(t, i, 0, findings)
		require.NotEqual(t, vault.OK, vault.Worst(findings))
		return findings[i]
	}
	v.Write(t, mount+"/roles/mesh", map[string]any{"allowed_uri_sans": "spiffe://eu.example.org/*"})
	require.Contains(
		t,
		find(config, "eu.example.org roles").Detail,
		`role "mesh" in mount `+mount+` can issue SPIFFE IDs of eu.example.org beside Entente`,
	)

	wide := config
	wide.Auth = vault.Token{
		Token: text(v.Token(t, v.Policy(t, `path "*" { capabilities = ["create", "read", "update", "list"] }`), "1h")),
	}
	require.Contains(
		t,
		find(wide, "eu.example.org rights").Detail,
		"the token could sign for other trust domains, since its policies do not pin uri_sans",
	)

	narrow := config
	narrow.Auth = vault.Token{
		Token: text(v.Token(t, v.Policy(t, `path "auth/token/lookup-self" { capabilities = ["read"] }`), "1h")),
	}
	require.Contains(t, find(narrow, "eu.example.org signing").Detail, vault.ErrDenied.Error())

	wrong := config
	wrong.Auth = vault.AppRole{RoleID: text("no"), SecretID: text("no")}
	require.Contains(t, find(wrong, "login").Detail, vault.ErrLogin.Error())

	empty := config
	empty.Mounts = map[spiffeid.TrustDomain]Mount{domain: {Path: v.EmptyPKI(t)}}
	require.Contains(t, find(empty, "eu.example.org anchors").Detail, "read issuer default")
}

func TestRolesThatCouldIssueSPIFFEIDs(t *testing.T) {
	for pattern, want := range map[string]bool{
		"*": true, "spiffe://*": true, "spiffe://eu.example.org/*": true,
		"spiffe://eu.example.org/ns/{{identity.entity.name}}": true,
		"spiffe://eu.example.org/one":                         true, "*.example.org": true, "spiffe://eu*": true,
		"": false, "https://*": false, "spiffe://us.example.org/*": false, "spiffe://eu.example.org.evil.org/*": false,
		"spiffe://eu": false,
	} {
		_, got := issuesSPIFFE([]string{pattern}, domain)
		require.Equal(t, want, got, pattern)
	}
}

func TestPoliciesAsPrinted(t *testing.T) {
	printed, err := Policies([]PolicyFor{{Mount: "pki_eu", Issuers: []string{"eu-2026"}, TrustDomain: domain}},
		[]transit.PolicyFor{{Mount: "transit", Cluster: "eu", Member: "eu-1"}})
	require.NoError(t, err)
	want, err := os.ReadFile("testdata/policies.hcl")
	require.NoError(t, err)
	require.Equal(t, string(want), printed)
	_, err = Policies(nil, nil)
	require.EqualError(t, err, "name a PKI or a Transit mount")
	for _, test := range []struct {
		bad transit.PolicyFor
		err string
	}{
		{transit.PolicyFor{Mount: "a/../b", Cluster: "eu"}, `"a/../b" is no path of a Vault mount`},
		{transit.PolicyFor{Mount: "transit"}, `cluster "" cannot stand in the name of a key`},
		{transit.PolicyFor{Mount: "transit", Cluster: "eu", Member: "*"},
			`member "*" cannot stand in the name of a key`},
		{transit.PolicyFor{Mount: "transit", Cluster: "eu", Prefix: "\"x"},
			`key_prefix "\"x" cannot stand in the name of a key`},
	} {
		_, err := Policies(nil, []transit.PolicyFor{test.bad})
		require.ErrorContains(t, err, test.err)
	}
}
