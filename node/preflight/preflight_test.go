package preflight_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/preflight"
)

// issued is when the certificates of these tests begin. They are valid for a day.
var issued = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// writePair writes a certificate for bundle.example.org, and its key.
func writePair(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"bundle.example.org"},
		NotBefore: issued, NotAfter: issued.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600))
	}
}

// load reads a configuration of a member whose files are in dir, which the settings call DIR.
func load(t *testing.T, dir, settings string) *config.Config {
	t.Helper()
	path := filepath.Join(dir, "entente.hcl")
	text := `cluster {
  name         = "eu"
  trust_domain = "eu.example.org"
  region       = "eu-west-1"
}
member {
  id       = "eu-1"
  zone     = "eu-west-1a"
  data_dir = "DIR/data"
}
` + settings
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600))
	cfg, err := config.Load(path)
	require.NoError(t, err)
	return cfg
}

const (
	webFiles = `bundle_endpoint {
  advertise = "ADVERTISE:7443"
  profile "https_web" {
    cert_file = "DIR/CERT"
    key_file  = "DIR/KEY"
  }
}
`
	rootsFile = `bundle_endpoint {
  profile "https_web" {
    cert_file  = "DIR/a.pem"
    key_file   = "DIR/a.key"
    roots_file = "DIR/ROOTS"
  }
}
`
	joinBlock = `join {
  addresses = ["eu-2.example.org:7440"]
  token     = "TOKEN"
}
`
	wrapped = `authority {
  keys "disk" {
    encryption "key" { key = "SECRET" }
  }
}
`
	acme = `bundle_endpoint {
  profile "https_web" {
    acme {
      hosts          = ["bundle.example.org"]
      agree_to_terms = true
      ca_file        = "DIR/ROOTS"
      eab_key_id     = "k"
      eab_hmac_key   = "SECRET"
    }
  }
}
`
	vaultBlock = `upstream "vault" {
  address   = "https://vault.example.org:8200"
  pki_mount = "pki"
  ca_file   = "DIR/ROOTS"
  anchors   = "file:DIR/ANCHORS"
  AUTH
}
`
)

func with(settings string, pairs ...string) string {
	return strings.NewReplacer(pairs...).Replace(settings)
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "a")
	writePair(t, dir, "b")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "empty.pem"), nil, 0o600))
	t.Setenv("ENTENTE_TEST_WRAP", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	t.Setenv("ENTENTE_TEST_SHORT", "AAEC")
	web := func(cert, key string) string {
		return with(webFiles, "CERT", cert, "KEY", key, "ADVERTISE", "bundle.example.org")
	}
	for _, test := range []struct{ name, settings, want string }{
		{"nothing", "", ""},
		{"a certificate with its key", web("a.pem", "a.key"), ""},
		{"a certificate with another key", web("a.pem", "b.key"),
			"bundle_endpoint.profile: cert_file DIR/a.pem with key_file DIR/b.key: tls: private key does not match " +
				"public key"},
		{"a missing certificate", web("c.pem", "a.key"),
			"bundle_endpoint.profile: read cert_file: open DIR/c.pem: no such file or directory"},
		{"a missing key", web("a.pem", "c.key"),
			"bundle_endpoint.profile: read key_file: open DIR/c.key: no such file or directory"},
		{"a key for a certificate", web("a.key", "a.key"),
			"bundle_endpoint.profile: cert_file DIR/a.key with key_file DIR/a.key: tls: failed to find certificate " +
				"PEM " +
				"data in certificate input, but did find a private key; PEM inputs may have been switched"},
		{"web roots", with(rootsFile, "ROOTS", "a.pem"), ""},
		{"missing web roots", with(rootsFile, "ROOTS", "none.pem"),
			"bundle_endpoint.profile.roots_file DIR/none.pem: open DIR/none.pem: no such file or directory"},
		{"a key for web roots", with(rootsFile, "ROOTS", "a.key"), "bundle_endpoint.profile.roots_file DIR/a.key: " +
			"its web roots: PEM block 1 is \"PRIVATE KEY\", not CERTIFICATE"},
		{"empty web roots", with(rootsFile, "ROOTS", "empty.pem"),
			"bundle_endpoint.profile.roots_file DIR/empty.pem: it is empty"},
		{"a wrapping key", with(wrapped, "SECRET", "env:ENTENTE_TEST_WRAP"), ""},
		{"a missing variable", with(wrapped, "SECRET", "env:ENTENTE_TEST_UNSET"),
			"the wrapping key of the signing keys, env:ENTENTE_TEST_UNSET: read secret env:ENTENTE_TEST_UNSET: it is " +
				"empty"},
		{"a short wrapping key", with(wrapped, "SECRET", "env:ENTENTE_TEST_SHORT"),
			"the wrapping key of the signing keys, env:ENTENTE_TEST_SHORT: a wrapping key is 32 bytes in base64; " +
				"make " +
				"one with `openssl rand -base64 32`"},
		{"a missing token", with(joinBlock, "TOKEN", "file:DIR/token"),
			"join.token: read secret: open DIR/token: no such file or directory"},
		{"roots and a key for ACME", with(acme, "ROOTS", "a.pem", "SECRET", "env:ENTENTE_TEST_WRAP"), ""},
		{"no roots and no key for ACME", with(acme, "ROOTS", "a.key", "SECRET", "env:ENTENTE_TEST_UNSET"),
			"bundle_endpoint.profile.acme.ca_file: DIR/a.key holds no certificates in PEM, or more than 4194304 " +
				"bytes\n" +
				"bundle_endpoint.profile.acme.eab_hmac_key: read secret env:ENTENTE_TEST_UNSET: it is empty"},
		{"everything at once", with(joinBlock, "TOKEN", "env:ENTENTE_TEST_UNSET") + web("c.pem", "a.key") +
			with(wrapped, "SECRET", "file:DIR/wrap"),
			"join.token: read secret env:ENTENTE_TEST_UNSET: it is empty\n" +
				"bundle_endpoint.profile: read cert_file: open DIR/c.pem: no such file or directory\n" +
				"the wrapping key of the signing keys, file:DIR/wrap: read secret: open DIR/wrap: no such file or " +
				"directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := preflight.Check(load(t, dir, test.settings))
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, strings.ReplaceAll(test.want, "DIR", dir))
		})
	}
}

// A member that belongs to a cluster does not read its join block, and the token may be gone.
func TestCheckOfAMember(t *testing.T) {
	dir := t.TempDir()
	cfg := load(t, dir, with(joinBlock, "TOKEN", "hunter2"))
	require.ErrorContains(t, preflight.Check(cfg), "join.token: ")
	require.NotContains(t, preflight.Check(cfg).Error(), "hunter2")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data", "raft"), 0o700))
	require.NoError(t, preflight.Check(cfg))
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "a")
	writePair(t, dir, "b")
	t.Setenv("ENTENTE_TEST_TOKEN", "s3cret")
	web := func(host string) string {
		return with(webFiles, "CERT", "a.pem", "KEY", "a.key", "ADVERTISE", host)
	}
	const unusable = "the member starts, and cannot use Vault until this is mended: cannot read what the login needs: "
	login := func(roots, anchors, auth string) string {
		return with(vaultBlock, "ROOTS", roots, "ANCHORS", anchors, "AUTH", auth)
	}
	for _, test := range []struct {
		name, settings string
		after          time.Duration
		want           string
	}{
		{"a certificate that fits", web("bundle.example.org"), time.Hour, ""},
		{"an expired one", web("bundle.example.org"), 25 * time.Hour,
			"cert_file DIR/a.pem expired on 2026-03-02T12:00:00Z: peers refuse it; renew it"},
		{"one of the future", web("bundle.example.org"), -time.Hour,
			"cert_file DIR/a.pem is valid from 2026-03-01T12:00:00Z only: check the clock of this machine"},
		{"one of another name", web("other.example.org"), time.Hour,
			"cert_file DIR/a.pem does not fit bundle_endpoint.advertise, so that peers refuse it: x509: certificate " +
				"is " +
				"valid for bundle.example.org, not other.example.org"},
		{"roots that fit", with(rootsFile, "ROOTS", "a.pem"), time.Hour, ""},
		{"roots of another CA", with(rootsFile, "ROOTS", "b.pem"), time.Hour,
			"cert_file DIR/a.pem is below none of the certificates in roots_file DIR/b.pem, so that other clusters " +
				"refuse the endpoint: name the roots of its CA"},
		{"expired roots", with(rootsFile, "ROOTS", "b.pem"), 25 * time.Hour,
			"bundle_endpoint.profile.roots_file DIR/b.pem: its web root 1 expired at 2026-03-02T12:00:00Z, and no " +
				"other is left\n" +
				"cert_file DIR/a.pem expired on 2026-03-02T12:00:00Z: peers refuse it; renew it"},
		{"a missing token", login("a.pem", "a.pem", `auth "token" { token = "env:ENTENTE_TEST_UNSET" }`), time.Hour,
			unusable + "the token: read secret env:ENTENTE_TEST_UNSET: it is empty"},
		{"missing roots", login("none.pem", "a.pem", `auth "token" { token = "env:ENTENTE_TEST_TOKEN" }`), time.Hour,
			unusable + "open DIR/none.pem: no such file or directory"},
		{"a missing service account", login("a.pem", "a.pem", "auth \"kubernetes\" {\n role = \"r\"\n token_file = "+
			"\"DIR/sa\"\n }"), time.Hour, unusable + "open DIR/sa: no such file or directory"},
		{"a client certificate with another key", login("a.pem", "a.pem", "auth \"cert\" {\n cert_file = "+
			"\"DIR/a.pem\"\n "+
			"key_file = \"DIR/b.key\"\n }"), time.Hour, unusable + "certificate DIR/a.pem with key DIR/b.key: tls: " +
			"private key does " +
			"not match public key"},
		{"half a login", login("a.pem", "a.pem", "auth \"approle\" {\n role_id = \"env:ENTENTE_TEST_TOKEN\"\n "+
			"secret_id = "+
			"\"file:DIR/none\"\n }"), time.Hour, unusable + "secret_id: read secret: open DIR/none: no such file or " +
			"directory"},
		{"missing anchors", login("a.pem", "none", `auth "token" { token = "env:ENTENTE_TEST_TOKEN" }`), time.Hour,
			unusable + "open DIR/none: no such file or directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := load(t, dir, test.settings)
			require.NoError(t, preflight.Check(cfg))
			got := strings.Join(preflight.Warnings(cfg, issued.Add(test.after)), "\n")
			require.Equal(t, strings.ReplaceAll(test.want, "DIR", dir), got)
		})
	}
}

// TestWebRoots: what another cluster gets with an invitation, and what it may not be able to verify.
func TestWebRoots(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, "a")
	writePair(t, dir, "b")
	now := issued.Add(time.Hour)
	read := func(settings string, now time.Time) (string, string, error) {
		roots, doubt, err := preflight.WebRoots(load(t, dir, settings).BundleEndpoint, now)
		return string(roots), strings.ReplaceAll(doubt, dir, "DIR"), err
	}
	content, err := os.ReadFile(filepath.Join(dir, "a.pem"))
	require.NoError(t, err)

	roots, doubt, err := read(with(rootsFile, "ROOTS", "a.pem"), now)
	require.NoError(t, err)
	require.Equal(t, string(content), roots)
	require.Empty(t, doubt)

	_, doubt, err = read(with(rootsFile, "ROOTS", "b.pem"), now)
	require.NoError(t, err)
	require.Equal(t, "cert_file DIR/a.pem is below none of the certificates in roots_file DIR/b.pem, so that other "+
		"clusters refuse the endpoint: name the roots of its CA", doubt)

	roots, doubt, err = read(with(webFiles, "CERT", "a.pem", "KEY", "a.key", "ADVERTISE", "bundle.example.org"), now)
	require.NoError(t, err)
	require.Empty(t, roots)
	require.Equal(t, "cert_file DIR/a.pem is below no root of this system, so that other clusters may refuse the "+
		"endpoint: if its CA is private, name its roots in bundle_endpoint.profile.roots_file", doubt)

	_, _, err = read(with(rootsFile, "ROOTS", "a.pem"), now.Add(24*time.Hour))
	require.EqualError(t, err, "bundle_endpoint.profile.roots_file "+dir+"/a.pem: its web root 1 expired at "+
		"2026-03-02T12:00:00Z, and no other is left")
}
