package client_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A program that imports the client does not link the server.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	const module = "github.com/ententehq/entente/"
	own := map[string]bool{
		"api/entente/v1": true, "api/entente/state/v1": true, "api/hintdiff": true,
		"bundle": true, "client": true, "internal/apierror": true, "internal/token": true,
	}
	for path := range strings.Lines(string(out)) {
		path = strings.TrimSpace(path)
		if rel, ok := strings.CutPrefix(path, module); ok {
			require.True(t, own[rel] || strings.HasPrefix(rel, "bundle/internal/"), "client links %s", rel)
		}
		for _, heavy := range []string{"raft", "memdb", "vault", "certmagic", "acme", "zlint", "prometheus", "bbolt"} {
			require.NotContains(t, strings.TrimPrefix(path, module), heavy)
		}
	}
}
