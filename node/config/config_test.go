package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const validHead = `
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

func decode(t *testing.T, src string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "entente.hcl")
	require.NoError(t, os.WriteFile(path, []byte(src), 0o600))
	cfg, err := Load(path)
	if err != nil {
		require.Nil(t, cfg)
		err = errorText(strings.ReplaceAll(err.Error(), path, "entente.hcl"))
	}
	return cfg, err
}

type errorText string

func (e errorText) Error() string { return string(e) }

func TestDefaults(t *testing.T) {
	cfg, err := decode(t, validHead)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:7440", cfg.Member.Listen)
	require.Equal(t, "127.0.0.1:7440", cfg.Member.Advertise)
	require.Equal(t, "127.0.0.1:7443", cfg.BundleEndpoint.Listen)
	require.Equal(t, ProfileSPIFFE, cfg.BundleEndpoint.Profile)
	require.Equal(t, 5*time.Minute, cfg.BundleEndpoint.RefreshHint)
	require.Equal(t, "127.0.0.1:7448", cfg.Telemetry.Listen)
	require.Equal(t, "/var/lib/entente", cfg.Member.DataDir)
	require.Equal(t, Authority{
		CATTL: 24 * time.Hour, X509SVIDTTL: time.Hour, JWTSVIDTTL: 5 * time.Minute, SigningGrace: time.Hour,
		JWTKeyTTL: 2160 * time.Hour,
		IssueRate: 500, IssueBurst: 2000, LintSample: 1000, Keys: KeysDisk,
	}, cfg.Authority)
	require.Equal(t, 90*24*time.Hour, cfg.SelfSigned.RootTTL)
	require.Equal(t, Routing{140, 50, StaleDemote, 10 * time.Minute, 15}, cfg.Routing)
	require.Nil(t, cfg.Join)
}

func TestWholeConfiguration(t *testing.T) {
	t.Setenv("ENTENTE_TEST_TOKEN", " s3cret\n")
	cfg, err := decode(t, `
cluster {
  name         = "eu"
  trust_domain = "eu.example.org"
  region       = "eu-west-1"
}
member {
  id        = "eu-1"
  zone      = "eu-west-1a"
  data_dir  = "/srv/entente"
  listen    = "0.0.0.0:7440"
  advertise = "eu-1.example.org:7440"
}
join {
  addresses = ["eu-2.example.org:7440", "[2001:db8::1]:7440"]
  token     = "env:ENTENTE_TEST_TOKEN"
}
bundle_endpoint {
  listen       = "0.0.0.0:7443"
  refresh_hint = "1m"
  profile "https_web" {
    cert_file = "/etc/entente/web.pem"
    key_file  = "/etc/entente/web.key"
  }
}
upstream "selfsigned" { root_ttl = "100h" }
authority {
  ca_ttl      = "12h"
  issue_rate  = 0
  issue_burst = 50
  lint_sample = 0
  keys "memory" {}
}
routing { stale = "drop" }
telemetry { log_format = "json" }
`)
	require.NoError(t, err)
	require.Equal(t, "eu-1.example.org:7440", cfg.Member.Advertise)
	require.Equal(t, Authority{
		CATTL: 12 * time.Hour, X509SVIDTTL: time.Hour, JWTSVIDTTL: 5 * time.Minute, SigningGrace: time.Hour,
		JWTKeyTTL:  2160 * time.Hour,
		IssueBurst: 50, Keys: KeysMemory,
	}, cfg.Authority)
	require.Equal(t, ProfileWeb, cfg.BundleEndpoint.Profile)
	require.Equal(t, "/etc/entente/web.key", cfg.BundleEndpoint.KeyFile)
	require.Equal(t, 100*time.Hour, cfg.SelfSigned.RootTTL)
	require.Equal(t, StaleDrop, cfg.Routing.Stale)
	token, err := cfg.Join.Token.Read()
	require.NoError(t, err)
	require.Equal(t, "s3cret", token)
}

// A new anchor of the upstream waits for approval only if the configuration requires it.
func TestAnchorApproval(t *testing.T) {
	for setting, want := range map[string]bool{
		"": false, "anchor_approval = false": false, "anchor_approval = true": true,
	} {
		cfg, err := decode(t, validHead+"upstream \"vault\" {\n address = \"https://v:8200\"\n pki_mount = "+
			"\"pki\"\n "+setting+"\n auth \"token\" { token = \"env:T\" }\n}")
		require.NoError(t, err, setting)
		require.Equal(t, want, cfg.AnchorApproval, setting)
	}
}

// acmeBlock returns a bundle endpoint block with settings of an ACME server, which begin on line 14.
func acmeBlock(settings string) string {
	return "bundle_endpoint {\n profile \"https_web\" {\n acme {\n " + settings + "\n }\n }\n}"
}

func TestACMEConfiguration(t *testing.T) {
	file, err := parseSource([]byte(validHead+acmeBlock("agree_to_terms = true\n hosts = [\"B.example.org\"]\n "+
		"eab_key_id = \"k\"\n eab_hmac_key = \"s3cret\"")), "entente.hcl")
	require.NoError(t, err)
	cfg, err := decodeConfig(file)
	require.NoError(t, err)
	require.Equal(t, &ACME{
		Directory: "https://acme-v02.api.letsencrypt.org/directory", Hosts: []string{"b.example.org"}, EABKeyID: "k",
		EABKey: Secret{"s3cret"},
	}, cfg.BundleEndpoint.ACME)
	require.NotContains(t, fmt.Sprintf("%+v %#v", cfg.BundleEndpoint.ACME, cfg.BundleEndpoint.ACME), "s3cret")
}

func TestRefusedConfigurations(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"nothing", ``,
			"entente.hcl:1: the block \"cluster\" is missing; it needs name, trust_domain, region\n" +
				"entente.hcl:1: the block \"member\" is missing; it needs id, zone"},
		{"syntax", `cluster {`,
			"entente.hcl:1: There is no closing brace for this block before the end of the file. This may be caused " +
				"by incorrect brace nesting elsewhere in this file."},
		{"unknown block", validHead + `memebr {}`,
			`entente.hcl:11: Blocks of type "memebr" are not expected here. Did you mean "member"?`},
		{"unknown setting", validHead + `authority { ca_tl = "24h" }`,
			`entente.hcl:11: An argument named "ca_tl" is not expected here. Did you mean "ca_ttl"?`},
		{"twice", validHead + "raft {}\nraft {}",
			`entente.hcl:12: the block "raft" occurs twice; the first is on line 11`},
		{"lifetimes that do not fit", validHead + `authority { ca_ttl = "1h" }`,
			`entente.hcl:11: authority: SVIDs live for 1h0m0s at most, for which ca_ttl (1h0m0s) is too short: raise ` +
				`ca_ttl to 2h30m0s at least, or lower the SVID lifetime`},
		{"short root", validHead + `upstream "selfsigned" { root_ttl = "25h" }`,
			`entente.hcl:11: upstream "selfsigned".root_ttl: 25h0m0s is out of bounds; it must be from 96h0m0s to ` +
				`438000h0m0s`},
		{"no unit", validHead + `federation { min_refresh = "5" }`,
			`entente.hcl:11: federation.min_refresh: "5" is not a duration; write a number with a unit, such as "10s"`},
		{"out of bounds", validHead + `federation { min_refresh = "1ms" }`,
			`entente.hcl:11: federation.min_refresh: 1ms is out of bounds; it must be from 1s to 24h0m0s`},
		{"hint below minimum", validHead + `bundle_endpoint { refresh_hint = "2s" }`,
			`entente.hcl:11: bundle_endpoint.refresh_hint: 2s is out of bounds; it must be from 10s to 24h0m0s`},
		{"keys elsewhere", validHead + "authority {\n keys \"hsm\" {}\n}",
			`entente.hcl:12: "hsm" is not a place for keys; write "disk", "memory" or "vault_transit"`},
		{"keys twice", validHead + "authority {\n keys \"disk\" {}\n keys \"memory\" {}\n}",
			`entente.hcl:13: authority has two keys blocks; a member keeps its keys in one place`},
		{"keys with a setting", validHead + "authority {\n keys \"memory\" { size = 1 }\n}",
			`entente.hcl:12: An argument named "size" is not expected here.`},
		{"no burst", validHead + "authority { issue_burst = 0 }",
			`entente.hcl:11: authority.issue_burst: must be a whole number from 1 to 1000000`},
		{"profile", validHead + "bundle_endpoint {\n profile \"https_wub\" {}\n}",
			`entente.hcl:12: "https_wub" is not an endpoint profile; write "https_spiffe" or "https_web"`},
		{"profile without files", validHead + "bundle_endpoint {\n profile \"https_web\" { cert_file = \"a\" }\n}",
			`entente.hcl:12: bundle_endpoint.profile "https_web" needs cert_file and key_file together`},
		{"profile without a certificate", validHead + "bundle_endpoint {\n profile \"https_web\" {}\n}",
			`entente.hcl:12: bundle_endpoint.profile "https_web" needs a certificate; write cert_file and key_file, ` +
				`or an acme block`},
		{"files and ACME", validHead + "bundle_endpoint {\n profile \"https_web\" {\n cert_file = \"a\"\n key_file = " +
			"\"b\"\n acme {}\n }\n}",
			`entente.hcl:15: bundle_endpoint.profile "https_web" has both acme and certificate files; write acme, or ` +
				`cert_file and key_file`},
		{"ACME without names", validHead + acmeBlock(`agree_to_terms = true`),
			`entente.hcl:13: bundle_endpoint.profile.acme.hosts is missing`},
		{"ACME without agreement", validHead + acmeBlock("hosts = [\"b.example.org\"]\n agree_to_terms = false"),
			`entente.hcl:15: bundle_endpoint.profile.acme.agree_to_terms: an ACME server issues certificates only to ` +
				`those who agree to its terms; read them and write true, or use cert_file and key_file`},
		{"ACME for a wildcard", validHead + acmeBlock("agree_to_terms = true\n hosts = [\"*.example.org\"]"),
			`entente.hcl:15: bundle_endpoint.profile.acme.hosts: "*.example.org" is not a host name for an endpoint; ` +
				`write one such as "bundle.example.org", without wildcard, port or address`},
		{"ACME by plain HTTP", validHead + acmeBlock("agree_to_terms = true\n hosts = [\"b.example.org\"]\n "+
			"directory = \"http://acme.example.org/dir\""),
			`entente.hcl:16: bundle_endpoint.profile.acme.directory: "http://acme.example.org/dir" is not the URL of ` +
				`an ACME directory; write one such as "https://acme-v02.api.letsencrypt.org/directory"`},
		{"ACME with half an account", validHead + acmeBlock("agree_to_terms = true\n hosts = [\"b.example.org\"]\n "+
			"email = \"nobody\"\n eab_key_id = \"k\""),
			"entente.hcl:16: bundle_endpoint.profile.acme.email: \"nobody\" is not a mail address; write one such as " +
				"\"ops@example.org\", or leave it out\n" +
				"entente.hcl:17: bundle_endpoint.profile.acme.eab_key_id: requires eab_hmac_key, and eab_hmac_key " +
				"requires it; the operator of the ACME server provides both"},
		{"a cluster of Kubernetes with a dot", validHead + "agents {\n kubernetes \"prod.eu\" {\n" +
			" accounts = [\"a:b\"]\n }\n}",
			`entente.hcl:12: "prod.eu" is not a name for a Kubernetes cluster: it has 1 to 20 small letters, digits, ` +
				`'-' and '_', since it is a part of the names of its agents, which a dot ends`},
		{"a cluster of Kubernetes with a long name", validHead + "agents {\n kubernetes \"a23456789012345678901\" {\n" +
			" accounts = [\"a:b\"]\n }\n}",
			`entente.hcl:12: "a23456789012345678901" is not a name for a Kubernetes cluster: it has 1 to 20 small ` +
				`letters, digits, '-' and '_', since it is a part of the names of its agents, which a dot ends`},
		{"upstream", validHead + `upstream "volt" {}`,
			`entente.hcl:11: "volt" is not an upstream; write "selfsigned" or "vault", or leave the block out`},
		{"vault without a login", validHead + "upstream \"vault\" {\n address = \"https://vault.example.org:8200\"\n " +
			"pki_mount = \"pki_eu\"\n}",
			`entente.hcl:11: upstream "vault": no auth block; one of token, approle, kubernetes and cert is needed`},
		{"vault by plain HTTP", validHead + "upstream \"vault\" {\n address = \"http://vault.example.org\"\n " +
			"pki_mount = \"pki_eu\"\n auth \"token\" { token = \"env:T\" }\n}",
			`entente.hcl:11: upstream "vault": address "http://vault.example.org" is not of the form ` +
				`https://HOST:PORT; for a Vault Agent on this machine, set plain_loopback = true`},
		{"vault by plain HTTP elsewhere", validHead + "upstream \"vault\" {\n address = \"http://10.0.0.1:8200\"\n " +
			"plain_loopback = true\n pki_mount = \"pki_eu\"\n auth \"token\" { token = \"env:T\" }\n}",
			`entente.hcl:11: upstream "vault": address "http://10.0.0.1:8200": plain_loopback allows plain HTTP to ` +
				`an address of this machine alone, such as http://127.0.0.1:8100`},
		{"auth method", validHead + "upstream \"vault\" {\n address = \"https://v:8200\"\n pki_mount = \"pki_eu\"\n " +
			"auth \"github\" {}\n}",
			`entente.hcl:14: "github" is not an auth method; write "token", "approle", "kubernetes" or "cert"`},
		{"an approval that is none", validHead + "upstream \"vault\" {\n address = \"https://v:8200\"\n pki_mount = " +
			"\"pki\"\n anchor_approval = \"perhaps\"\n auth \"token\" { token = \"env:T\" }\n}",
			`entente.hcl:14: upstream "vault".anchor_approval: must be true or false`},
		{"shared mount", validHead + "upstream \"vault\" {\n address = \"https://v:8200\"\n pki_mount = \"pki\"\n " +
			"auth \"token\" { token = \"env:T\" }\n domain \"pay.example.org\" { pki_mount = \"pki\" }\n}",
			`entente.hcl:11: upstream "vault": domains eu.example.org and pay.example.org both use the mount pki: ` +
				`whoever signs there could name anybody in either domain; give each a mount with a root of its own`},
		{"address", validHead + `telemetry { listen = "7448" }`,
			`entente.hcl:11: telemetry.listen: "7448" is not an address; write host:port, such as "127.0.0.1:7440"`},
		{"port", validHead + `telemetry { listen = "127.0.0.1:0" }`,
			`entente.hcl:11: telemetry.listen: "127.0.0.1:0" has no usable port; write host:port with a port from 1 ` +
				`to 65535`},
		{"snapshots in the data folder", validHead + "snapshots { dir = \"/var/lib/entente/snapshots\" }",
			`entente.hcl:11: snapshots.dir: "/var/lib/entente/snapshots" is in member.data_dir, and would be ` +
				`lost with it; name a folder elsewhere`},
		{"snapshots anywhere", validHead + "snapshots { dir = \"snapshots\" }",
			`entente.hcl:11: snapshots.dir: "snapshots" is not an absolute path`},
		{"snapshots for nobody", validHead + "snapshots {\n dir = \"/b\"\n recipients = [\"age1\"]\n}",
			`entente.hcl:13: snapshots.recipients: "age1" is no age recipient: write the public key that age-keygen ` +
				`prints, age1…`},
		{"snapshots without a folder", validHead + "snapshots {}",
			`entente.hcl:11: snapshots.dir is missing`},
		{"traces without a collector", validHead + "telemetry {\n traces {}\n}",
			`entente.hcl:12: telemetry.traces.address is missing`},
		{"two collectors", validHead + "telemetry {\n traces { address = \"a:1\" }\n traces { address = \"b:1\" }\n}",
			`entente.hcl:13: telemetry has two traces blocks; a member exports its traces to one collector`},
		{"more traces than all", validHead + "telemetry {\n traces {\n address = \"a:1\"\n ratio = 1.5\n }\n}",
			`entente.hcl:14: telemetry.traces.ratio: must be a number from 0 to 1`},
		{"traces in the clear", validHead +
			"telemetry {\n traces {\n address = \"otel.example.org:4317\"\n plain_loopback = true\n }\n}",
			`entente.hcl:14: telemetry.traces.plain_loopback: otel.example.org:4317 is not an address of this ` +
				`machine; a connection to another one is encrypted: remove plain_loopback`},
		{"roots without TLS", validHead + "telemetry {\n traces {\n address = \"[::1]:4317\"\n " +
			"plain_loopback = true\n ca_file = \"ca.pem\"\n }\n}",
			`entente.hcl:15: telemetry.traces.ca_file: plain_loopback makes a connection without TLS; ` +
				`remove one of them`},
		{"imports that expire at once", validHead + `routing { import_ttl = "1s" }`,
			`entente.hcl:11: routing.import_ttl: 1s is out of bounds; it must be from 10s to 168h0m0s`},
		{"number", validHead + `routing { panic_threshold = 50.5 }`,
			`entente.hcl:11: routing.panic_threshold: must be a whole number from 0 to 100`},
		{"type", validHead + `join {
  addresses = "x"
  token = "t"
}`, `entente.hcl:12: join.addresses: must be a list; write addresses = ["x"]`},
		{"variable", validHead + `raft { disk_timeout = foo }`,
			`entente.hcl:11: raft.disk_timeout: foo is not quoted; write disk_timeout = "foo"`},
		{"names", strings.ReplaceAll(validHead, `"eu-1"`, `"EU/1"`),
			`entente.hcl:8: member.id: "EU/1" must be 1 to 63 lower-case letters, digits, dots, dashes and ` +
				`underscores, with a letter or digit at both ends`},
		{"trust domain", strings.ReplaceAll(validHead, `"eu.example.org"`, `"spiffe://eu.example.org"`),
			`entente.hcl:4: cluster.trust_domain: trust domain "spiffe://eu.example.org": the name is not a valid ` +
				`trust domain: write the name alone, without scheme or path`},
		{"a trust domain with a dot at its end", strings.ReplaceAll(validHead, `"eu.example.org"`, `"eu.example.org."`),
			`entente.hcl:4: cluster.trust_domain: trust domain "eu.example.org.": the name is not a valid trust ` +
				`domain: it has a dot at its end or two in a row, and cannot stand in an X509-SVID; write ` +
				`"eu.example.org"`},
		{"unspecified", strings.ReplaceAll(validHead, `"eu-west-1a"`, "\"eu-west-1a\"\n  listen = \"[::]:7440\""),
			`entente.hcl:10: member.listen: with "[::]:7440", advertise must name the address at which others reach ` +
				`this member`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(t, c.src)
			require.EqualError(t, err, c.want)
		})
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	s := Secret{source: "hunter2"}
	require.Equal(t, "(hidden)", s.String())
	require.Equal(t, "(hidden)", s.GoString())
	_, err := Secret{source: "env:ENTENTE_UNSET"}.Read()
	require.EqualError(t, err, "read secret env:ENTENTE_UNSET: it is empty")
	_, err = Secret{source: "file:/does/not/exist"}.Read()
	require.ErrorIs(t, err, os.ErrNotExist)
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(validHead))
	f.Add([]byte(validHead + `join { addresses = [null] token = "x" }`))
	f.Add([]byte("bundle_endpoint {\n profile \"https_web\" {}\n}"))
	f.Add([]byte(`routing { panic_threshold = 1e400 }`))
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := parseSource(src, "f.hcl")
		if err != nil {
			return
		}
		cfg, err := decodeConfig(file)
		if err == nil && (cfg.Cluster.Name == "" || cfg.Member.ID == "" || cfg.Cluster.TrustDomain.IsZero()) {
			t.Fatalf("accepted without names: %q", src)
		}
	})
}
