package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReportOfAShortHint(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"as long as the slowest peer's", validHead + `bundle_endpoint { refresh_hint = "15s" }`, ""},
		{"shorter", validHead + `bundle_endpoint { refresh_hint = "10s" }`,
			"refresh_hint is 10s, and the slowest peers poll every 15s at most " +
				"(federation.peer_min_refresh; SPIRE: 15s): a new authority is used after 3 times that; raise " +
				"refresh_hint, or lower peer_min_refresh if no such peer exists"},
		{"where every peer polls as often", validHead + `
federation { peer_min_refresh = "5s" }
bundle_endpoint { refresh_hint = "10s" }`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := decode(t, test.text)
			require.NoError(t, err)
			warning := strings.Join(cfg.Warnings(), "\n")
			require.Equal(t, test.want, warning)
		})
	}
}
