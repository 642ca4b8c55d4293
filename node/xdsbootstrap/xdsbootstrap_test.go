package xdsbootstrap_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/xdsbootstrap"
)

// TestServers: one shared name or one relay stands in place of the list of members.
func TestServers(t *testing.T) {
	members := []string{"eu-1.example.org:7440", "192.0.2.1:7440"}
	for name, test := range map[string]struct {
		config xdsbootstrap.Config
		want   []string // the target and the credentials of each server
	}{
		"members": {
			xdsbootstrap.Config{Servers: members},
			[]string{"dns:///eu-1.example.org:7440 tls", "passthrough:///192.0.2.1:7440 tls"},
		},
		"a shared name": {
			xdsbootstrap.Config{Servers: members, DNSName: "entente.eu.example.org:7440"},
			[]string{"dns:///entente.eu.example.org:7440 tls"},
		},
		"a relay": {xdsbootstrap.Config{Relay: "/run/xds.sock"}, []string{"unix:/run/xds.sock insecure"}},
		"a relay and a shared name": {
			xdsbootstrap.Config{Relay: "/run/xds.sock", DNSName: "entente.eu.example.org:7440"},
			[]string{"unix:/run/xds.sock insecure"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.Home, test.config.Dir = "eu.example.org", t.TempDir()
			text, err := test.config.Marshal()
			require.NoError(t, err)
			var file struct {
				Servers []struct {
					URI   string `json:"server_uri"`
					Creds []struct {
						Type string `json:"type"`
					} `json:"channel_creds"`
				} `json:"xds_servers"`
			}
			require.NoError(t, json.Unmarshal(text, &file))
			var got []string
			for _, s := range file.Servers {
				got = append(got, s.URI+" "+s.Creds[0].Type)
			}
			require.Equal(t, test.want, got)
		})
	}
	_, err := xdsbootstrap.Config{Home: "eu.example.org"}.Marshal()
	require.EqualError(t, err, "no server and no relay is given")
}
