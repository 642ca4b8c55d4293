package provider

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The provider does not link the server.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for path := range strings.Lines(string(out)) {
		for _, heavy := range []string{"hashicorp/raft", "memdb", "vault", "certmagic", "zlint", "bbolt"} {
			require.NotContains(t, path, heavy)
		}
	}
}
