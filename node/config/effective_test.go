package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sample is the commented configuration that users copy. A line that begins with "#:" belongs to an alternative to the
// block above it.
const sample = "../../examples/entente.hcl"

// alternatives returns the alternatives of the sample, each as a configuration.
func alternatives(t *testing.T, text string) []string {
	t.Helper()
	var out []string
	var one strings.Builder
	for line := range strings.Lines(text + "\n") {
		if code, ok := strings.CutPrefix(line, "#:"); ok {
			one.WriteString(code)
		} else if one.Len() > 0 {
			out = append(out, validHead+one.String())
			one.Reset()
		}
	}
	require.NotEmpty(t, out)
	return out
}

// The effective configuration of every configuration is one, and its own effective configuration.
func TestEffective(t *testing.T) {
	raw, err := os.ReadFile(sample)
	require.NoError(t, err)
	files := append(alternatives(t, string(raw)), string(raw), validHead, validHead+
		"authority { ca_ttl = \"2160h\" }", validHead+`
upstream "vault" {
  address   = "https://vault.example.org:8200"
  pki_mount = "pki"
  auth "approle" {
    role_id   = "env:ROLE"
    secret_id = "file:/run/secret"
  }
}
authority {
  keys "vault_transit" {}
}`, validHead+`
telemetry {
  traces {
    address        = "127.0.0.1:4317"
    plain_loopback = true
    ratio          = 0.5
    authorization  = "env:OTEL"
  }
}`)
	for i, src := range files {
		cfg, err := decode(t, src)
		require.NoError(t, err, "%d: %s", i, src)
		again, err := decode(t, string(cfg.Effective()))
		require.NoError(t, err, "%s", cfg.Effective())
		require.Equal(t, string(cfg.Effective()), string(again.Effective()))
		if cfg.Vault == nil && cfg.Transit == nil && len(cfg.Authority.Encryption) == 0 {
			require.Equal(t, cfg, again) // others contain functions, which do not compare
		}
	}
}

func TestEffectiveDefaults(t *testing.T) {
	cfg, err := decode(t, validHead)
	require.NoError(t, err)
	require.Equal(t, `cluster {
  name         = "eu"
  region       = "eu-west-1"
  trust_domain = "eu.example.org"
}

member {
  id        = "eu-1"
  zone      = "eu-west-1a"
  data_dir  = "/var/lib/entente"
  listen    = "127.0.0.1:7440"
  advertise = "127.0.0.1:7440"
}

authority {
  ca_ttl        = "24h"
  x509_svid_ttl = "1h"
  jwt_svid_ttl  = "5m"
  jwt_key_ttl   = "2160h"
  signing_grace = "1h"
  issue_rate    = 500
  issue_burst   = 2000
  lint_sample   = 1000
  keys "disk" {
  }
}

federation {
  min_refresh      = "10s"
  peer_min_refresh = "15s"
  approval         = "required"
  egress_proxy     = "none"
}

bundle_endpoint {
  listen       = "127.0.0.1:7443"
  refresh_hint = "5m"
  profile "https_spiffe" {
  }
}

upstream "selfsigned" {
  root_ttl = "2160h"
}

routing {
  overprovisioning_factor = 140
  panic_threshold         = 50
  stale                   = "demote"
  import_ttl              = "10m"
  self_preservation       = 15
}

raft {
  heartbeat_timeout = "1s"
  election_timeout  = "1s"
  disk_timeout      = "10s"
}

telemetry {
  listen     = "127.0.0.1:7448"
  log_level  = "info"
  log_format = "text"
}
`, string(cfg.Effective()))
}

// A secret in the file is never printed, and what is printed instead is refused when it is read.
func TestEffectiveHidesSecrets(t *testing.T) {
	for _, src := range []string{
		"join {\n addresses = [\"a:1\"]\n token = \"hunter2\"\n}",
		acmeBlock("agree_to_terms = true\n hosts = [\"b.example.org\"]\n eab_key_id = \"k\"\n eab_hmac_key = " +
			"\"hunter2\""),
		"upstream \"vault\" {\n address = \"https://v:8200\"\n pki_mount = \"pki\"\n auth \"token\" { token = " +
			"\"hunter2\" }\n}",
		"upstream \"vault\" {\n address = \"https://v:8200\"\n pki_mount = \"pki\"\n auth \"approle\" {\n role_id = " +
			"\"hunter2\"\n secret_id = \"hunter2\"\n }\n}",
	} {
		cfg, err := decode(t, validHead+src)
		require.NoError(t, err)
		require.NotContains(t, string(cfg.Effective()), "hunter2")
		_, err = decode(t, string(cfg.Effective()))
		require.ErrorContains(t, err, `"(hidden)" is what 'entente validate --effective' prints instead of a secret`)
	}
}

// The sample has every setting that exists, and every setting of the page on settings.
func TestSample(t *testing.T) {
	raw, err := os.ReadFile(sample)
	require.NoError(t, err)
	var names []string
	for _, schema := range schemas() {
		for _, a := range schema.Attributes {
			names = append(names, a.Name)
		}
		for _, b := range schema.Blocks {
			names = append(names, b.Type)
		}
	}
	page, err := os.ReadFile("../../docs/operating/settings.md")
	require.NoError(t, err)
	cell := regexp.MustCompile("(?m)^\\| (`[^|]*) \\|")
	setting := regexp.MustCompile("`(?:[^`]*\\.)?([a-z0-9_]+)`")
	documented := 0
	for _, row := range cell.FindAllSubmatch(page, -1) {
		for _, name := range setting.FindAllSubmatch(row[1], -1) {
			names, documented = append(names, string(name[1])), documented+1
		}
	}
	require.Greater(t, documented, 40)
	var code strings.Builder // without comments
	for line := range strings.Lines(string(raw)) {
		line, _, _ = strings.Cut(strings.TrimPrefix(line, "#:"), "#")
		code.WriteString(strings.TrimSuffix(line, "\n") + "\n")
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		require.Regexp(t, `(?m)(^|[{ ])`+name+` *(=|"|\{)`, code.String(), name)
	}
}

// TestEgressProxy: the proxy is checked when the configuration is read, its credentials when they are used.
func TestEgressProxy(t *testing.T) {
	for text, want := range map[string]string{
		`egress_proxy = "https://proxy:1"`: `egress_proxy "https://proxy:1" is refused: it is not "none", and not ` +
			`the URL of an HTTP proxy; write http://HOST:PORT`,
		`egress_proxy_credentials = "env:NO_SUCH"`: "egress_proxy_credentials are for an egress_proxy: name one, or " +
			"remove them",
	} {
		_, err := decode(t, validHead+"\nfederation {\n "+text+"\n}\n")
		require.ErrorContains(t, err, want)
	}
}
