package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/agent"
)

// TestAgentUnit verifies the unit of the agent, and that it grants what the defaults of the agent need.
func TestAgentUnit(t *testing.T) {
	verify := analyze(t)
	unit, err := os.ReadFile("entente-agent.service")
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	require.Len(t, executables.FindAll(unit, -1), 1)
	file := filepath.Join(t.TempDir(), "entente-agent.service")
	require.NoError(t, os.WriteFile(file, executables.ReplaceAll(unit, []byte("${1}"+self)), 0o600))
	out, err := exec.Command(verify, "verify", "--man=no", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "entente-agent.service:", "systemd-analyze has something to say of the unit")
	// It reads the programs of all processes and calls members: a unit without these has 1.
	out, err = exec.Command(verify, "security", "--offline=true", "--no-pager", "--threshold=25",
		"./entente-agent.service").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "/var/lib/entente-agent", agent.DefaultDataDir)
	require.Equal(t, "/run/entente-agent/public", filepath.Dir(agent.DefaultSocket))
	require.Equal(t, "/run/entente-agent", filepath.Dir(agent.DefaultAdmin))
	require.Contains(t, string(unit), "StateDirectory=entente-agent\n")
	require.Contains(t, string(unit), "RuntimeDirectory=entente-agent entente-agent/public\n")
}
