package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const unchanged = `
cluster {
  name         = "eu"
  trust_domain = "eu.example.org"
  region       = "eu-west-1"
}
member {
  id   = "eu-1"
  zone = "a"
}
upstream "vault" {
  address   = "https://vault.example.org"
  pki_mount = "pki"
  auth "token" { token = "s.one" }
}
telemetry { log_level = "info" }
`

// Changes finds what differs in effect, whatever the text of the file is.
func TestChanges(t *testing.T) {
	parse := func(text string) *Config {
		file, err := parseSource([]byte(text), "test")
		require.NoError(t, err)
		cfg, err := decodeConfig(file)
		require.NoError(t, err)
		return cfg
	}
	was := parse(unchanged)
	for name, c := range map[string]struct {
		change []string // what is replaced by what
		want   []string
	}{
		"nothing":              {nil, nil},
		"a default, written":   {[]string{`zone = "a"`, "zone = \"a\"\n listen = \"127.0.0.1:7440\""}, nil},
		"a duration":           {[]string{"telemetry {", "authority { ca_ttl = \"1440m\" }\ntelemetry {"}, nil},
		"the log level":        {[]string{`"info"`, `"debug"`}, []string{"telemetry.log_level"}},
		"a secret in the file": {[]string{"s.one", "s.two"}, []string{"secret 1 in the file"}},
		"the place of a secret": {[]string{"s.one", "env:TOKEN"},
			[]string{"secret 1 in the file", `upstream "vault".auth "token".token`}},
		"a block": {[]string{`auth "token" { token = "s.one" }`, `auth "kubernetes" { role = "entente" }`}, []string{
			"secret 1 in the file", `upstream "vault".auth "kubernetes"`, `upstream "vault".auth "kubernetes".role`,
			`upstream "vault".auth "token"`, `upstream "vault".auth "token".token`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			now := parse(strings.NewReplacer(c.change...).Replace(unchanged))
			require.Equal(t, c.want, Changes(was, now))
			require.Equal(t, c.want, Changes(now, was), "the other way round")
			require.NotContains(t, strings.Join(Changes(was, now), " "), "s.one")
		})
	}
}

// A credential that systemd loaded is read from its folder, which the configuration does not name.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "join-token"), []byte("hunter2\n"), 0o600))
	secret := Secret{source: "file:$CREDENTIALS_DIRECTORY/join-token"}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	_, err := secret.Read()
	require.EqualError(t, err, "read secret file:$CREDENTIALS_DIRECTORY/join-token: CREDENTIALS_DIRECTORY is not set: "+
		"add LoadCredential=join-token:PATH to the systemd unit, or write a path of this machine")
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	value, err := secret.Read()
	require.NoError(t, err)
	require.Equal(t, "hunter2", value)
	path, err := Credential("/etc/entente/$CREDENTIALS_DIRECTORY/x")
	require.NoError(t, err)
	require.Equal(t, "/etc/entente/$CREDENTIALS_DIRECTORY/x", path, "only at the beginning")
}
