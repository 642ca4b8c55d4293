package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// agent starts an agent of a cluster, and returns the socket of its workloads. Each ID is that of every process of this
// user, the first one by default.
func agent(t testing.TB, c *cluster, name string, addresses []string, ids ...string) (socket string) {
	t.Helper()
	socket, _ = startAgent(t, c, name, addresses, ids...)
	return socket
}

// startAgent is agent, and returns the process too.
func startAgent(
	t testing.TB, c *cluster, name string, addresses []string, ids ...string,
) (socket string, p *program) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent-") // short, since the path of a socket has at most 107 bytes
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "public", "api.sock")
	token := filepath.Join(dir, "token")
	lines := strings.Split(strings.TrimSpace(c.members[0].command("agent", "token", name)), "\n")
	require.NoError(t, os.WriteFile(token, []byte(lines[len(lines)-1]), 0o600))
	for _, id := range ids {
		c.members[0].command("entry", "create", "--agent", name, "--spiffe-id", id, "--federates-with-all",
			"--selector", fmt.Sprint("unix:uid:", os.Getuid()))
	}
	p = start(t, "agent "+name, exec.Command(binary, "agent", "--data-dir", filepath.Join(dir, "data"),
		"--workload-socket", socket, "--agent-socket", filepath.Join(dir, "admin", "admin.sock"), "--token-file", token,
		"--server", strings.Join(addresses, ",")))
	eventually(t, "the agent serves "+socket, func() error {
		_, err := os.Stat(socket)
		return err
	})
	return socket, p
}

// agentFolder is a folder that is kept fresh from an agent.
func (m *mesh) agentFolder(socket string) string {
	m.t.Helper()
	dir := m.t.TempDir()
	start(m.t, "svid --agent", exec.Command(binary, "svid", "x509", "--watch", "--agent", socket, "--dir", dir))
	eventually(m.t, "the folder is filled", func() error {
		_, err := os.Stat(filepath.Join(dir, "roots-"+m.us.domain+".pem"))
		return err
	})
	return dir
}
