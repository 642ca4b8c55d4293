package vaultca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/vault"
)

// ca is a CA to try rules with.
type ca struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

var began = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// make signs a certificate for key below above, or self-signed if above is the zero value.
func (above ca) make(t testing.TB, name string, key *ecdsa.PrivateKey, edit func(*x509.Certificate)) ca {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: began.Add(
			-time.Minute,
		), NotAfter: began.Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if edit != nil {
		edit(template)
	}
	parent, signer := above.Certificate, above.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return ca{certificate, key}
}

func named(uri string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		u, err := url.Parse(uri)
		if err != nil {
			panic(err)
		}
		c.URIs = []*url.URL{u}
	}
}

func TestExamine(t *testing.T) {
	key := newKey(t)
	root := ca{}.make(t, "root", newKey(t), nil)
	other := ca{}.make(t, "other", newKey(t), nil)
	issuing := root.make(t, "issuing", newKey(t), nil)
	with := func(edit func(*x509.Certificate)) ca {
		return issuing.make(t, "signed", key, func(c *x509.Certificate) {
			named("spiffe://eu.example.org")(c)
			if edit != nil {
				edit(c)
			}
		})
	}
	good := with(nil)
	for _, c := range []struct {
		name        string
		certificate ca
		chain       []*x509.Certificate
		anchors     []*x509.Certificate
		want        error
		warnings    Warnings
	}{
		{name: "good", certificate: good},
		{name: "the root in the chain does no harm", certificate: good, chain: []*x509.Certificate{good.Certificate,
			issuing.Certificate, root.Certificate}},
		{name: "another key", certificate: issuing.make(t, "signed", newKey(t), named("spiffe://eu.example.org")),
			want: vault.ErrWrongKey},
		{name: "a leaf", certificate: with(func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature
		}), want: vault.ErrNotCA},
		{name: "no right to sign", certificate: with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }),
			want: vault.ErrNotCA},
		{name: "another domain", certificate: with(named("spiffe://us.example.org")), want: vault.ErrWrongName},
		{name: "a path", certificate: with(named("spiffe://eu.example.org/a")), want: vault.ErrWrongName},
		{name: "no name", certificate: with(func(c *x509.Certificate) { c.URIs = nil }), want: vault.ErrWrongName},
		{name: "a second name", certificate: with(func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }),
			want: vault.ErrWrongName},
		{name: "a DNS name", certificate: with(func(c *x509.Certificate) { c.DNSNames = []string{"example.org"} }),
			want: vault.ErrNotCA},
		{name: "below another root", certificate: good, anchors: []*x509.Certificate{other.Certificate},
			want: vault.ErrNoChain},
		{name: "a link is missing", certificate: good, chain: []*x509.Certificate{good.Certificate},
			want: vault.ErrNoChain},
		{name: "two SVIDs", certificate: with(func(c *x509.Certificate) { c.NotAfter = began.Add(2 * time.Hour) }),
			warnings: Warnings{Short: 22 * time.Hour}},
		{name: "a second less",
			certificate: with(func(c *x509.Certificate) { c.NotAfter = began.Add(2*time.Hour - time.Second) }),
			want:        vault.ErrTooShort},
		{name: "Vault is ahead",
			certificate: with(func(c *x509.Certificate) { c.NotBefore = began.Add(10 * time.Minute) }),
			warnings:    Warnings{Ahead: 10 * time.Minute}},
		{name: "Vault is behind", certificate: with(func(c *x509.Certificate) {
			c.NotAfter = began.Add(23*time.Hour + 50*time.Minute)
		}), warnings: Warnings{Short: 10 * time.Minute}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Request{
				TrustDomain: domain,
				Key:         key.Public(),
				TTL:         24 * time.Hour,
				LongestSVID: time.Hour,
				Now:         began,
				Anchors:     c.anchors,
			}
			if a.Anchors == nil {
				a.Anchors = []*x509.Certificate{other.Certificate, root.Certificate}
			}
			chain := c.chain
			if chain == nil {
				chain = []*x509.Certificate{c.certificate.Certificate, issuing.Certificate}
			}
			signed, warnings, err := Examine(a, c.certificate.Certificate, chain)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
				require.NotEqual(t, "other", vault.Reason(err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.warnings, warnings)
			require.Equal(t, []*x509.Certificate{c.certificate.Certificate, issuing.Certificate}, signed.Chain)
			require.Equal(
				t,
				[]*x509.Certificate{root.Certificate, other.Certificate},
				signed.Anchors,
				"the one above the chain first",
			)
		})
	}
}

func TestTops(t *testing.T) {
	old := ca{}.make(t, "old root", newKey(t), nil)
	next := ca{}.make(t, "next root", newKey(t), nil)
	crossed := old.make(t, "next root", next.key, nil)
	issuing := next.make(t, "issuing", newKey(t), nil)
	unrelated := ca{}.make(t, "unrelated", newKey(t), nil)
	namesake := ca{}.make(t, "next root", newKey(t), nil)
	all := []*x509.Certificate{
		issuing.Certificate,
		next.Certificate,
		crossed.Certificate,
		old.Certificate,
		unrelated.Certificate,
		namesake.Certificate,
	}
	require.Equal(
		t,
		[]*x509.Certificate{next.Certificate, old.Certificate},
		Tops(issuing.Certificate, all),
		"cross-signed: both tops",
	)
	require.Equal(t, []*x509.Certificate{next.Certificate}, Tops(next.Certificate, nil), "a root is its own top")
	require.Empty(
		t,
		Tops(
			issuing.Certificate,
			[]*x509.Certificate{issuing.Certificate, unrelated.Certificate, namesake.Certificate},
		),
	)
}

func TestValidateErrors(t *testing.T) {
	second := spiffeid.RequireTrustDomainFromString("us.example.org")
	good := func() Config {
		return Config{
			Config: vault.Config{Address: "https://vault.example.org:8200", Auth: vault.Token{Token: text("x")}},
			Mounts: map[spiffeid.TrustDomain]Mount{domain: {Path: "pki_eu"}},
		}
	}
	require.NoError(t, good().Validate())
	for _, test := range []struct {
		want string
		edit func(*Config)
	}{
		{`address "http://vault:8200" is not of the form https://HOST:PORT; for a Vault Agent on this machine, set ` +
			`plain_loopback = true`, func(c *Config) { c.Address = "http://vault:8200" }},
		{`address "ftp://vault:8200" is not of the form https://HOST:PORT`,
			func(c *Config) { c.Address = "ftp://vault:8200" }},
		{`address "http://vault:8200": plain_loopback allows plain HTTP to an address of this machine alone, such as ` +
			`http://127.0.0.1:8100`,
			func(c *Config) { c.Address, c.PlainLoopback = "http://vault:8200", true }},
		{`no auth block; one of token, approle, kubernetes and cert is needed`,
			func(c *Config) { c.Auth = nil }},
		{`auth "approle" needs role_id and secret_id`,
			func(c *Config) { c.Auth = vault.AppRole{} }},
		{`auth "kubernetes" needs a role`,
			func(c *Config) { c.Auth = vault.Kubernetes{} }},
		{`auth "cert" needs cert_file and key_file`,
			func(c *Config) { c.Auth = vault.Certificate{} }},
		{`no PKI mount is configured; set pki_mount`,
			func(c *Config) { c.Mounts = nil }},
		{`issuer "a/b" is no reference to an issuer in Vault; use its name or its id`,
			func(c *Config) { c.Mounts[domain] = Mount{Path: "pki", Issuers: []string{"a/b"}} }},
		{`pki_mount of eu.example.org "../sys" is no path of a Vault mount; use letters, digits, _ . - and / between ` +
			`them`,
			func(c *Config) { c.Mounts[domain] = Mount{Path: "../sys"} }},
		{`domains eu.example.org and us.example.org both use the mount pki_eu: whoever signs there could name ` +
			`anybody in either domain; give each a mount with a root of its own`,
			func(c *Config) { c.Mounts[second] = Mount{Path: "pki_eu"} }},
	} {
		c := good()
		test.edit(&c)
		require.EqualError(t, c.Validate(), test.want)
	}
}

func FuzzParseSigned(f *testing.F) {
	root := ca{}.make(f, "root", newKey(f), nil)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
	f.Add(text, text)
	f.Add(text+text, "")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, certificate, chain string) {
		own, above, err := parseSigned(
			&api.Secret{Data: map[string]any{"certificate": certificate, "ca_chain": []any{chain}}},
		)
		if err != nil {
			require.ErrorIs(t, err, vault.ErrMalformed)
			return
		}
		require.Len(t, own, 1)
		require.LessOrEqual(t, len(above), maxChain)
		Tops(own[0], above)
	})
}
