package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// nodeClient is the program in grpcjs, with the packages that its lock file names, in a folder of its own.
func nodeClient(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "client.js"} {
		text, err := os.ReadFile(filepath.Join("grpcjs", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	install := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	install.Dir = dir
	out, err := install.CombinedOutput()
	require.NoError(t, err, "install the packages of grpcjs, which needs Node.js and npm: %s", out)
	return filepath.Join(dir, "client.js")
}

// TestNodeFollowsRoutes is TestGRPCFollowsRoutes with another implementation of xDS: gRPC for Node.js, which reads no
// bundle map and cannot present an SVID to its control plane.
func TestNodeFollowsRoutes(t *testing.T) {
	program := nodeClient(t)
	m := newMesh(t)
	ports := freePorts(t, 3)
	own, near, far := ports[0], ports[1], ports[2]
	m.server(m.eu, "a", own)
	m.server(m.eu, "b", near)
	m.server(m.us, "a", far)

	m.grant(m.eu, "/caller")
	dir := m.folder(m.eu, "/caller")
	socket := filepath.Join(t.TempDir(), "xds.sock")
	start(
		t, "relay",
		exec.Command(binary, "xds", "relay", "--listen", socket, "--dir", dir, "--address", m.eu.members[0].api),
	)
	eventually(t, "the relay listens", func() error {
		_, err := os.Stat(socket)
		return err
	})
	bootstrap := m.bootstrap(m.eu, dir, "eu-region/a", "--client", "node", "--relay", socket)
	cmd := exec.Command("node", program, "xds:///greeter")
	cmd.Env = append(os.Environ(), "GRPC_XDS_BOOTSTRAP="+bootstrap)
	client := start(t, "client", cmd)
	client.goesTo("its own zone", own)

	m.register(m.eu, "a", own, "draining")
	client.drainsInto(own, near)
	m.register(m.eu, "b", near, "unhealthy")
	client.goesTo("the other region and trust domain", far)
	m.register(m.eu, "a", own, "healthy")
	client.goesTo("its own zone again", own)
	m.register(m.eu, "a", own, "unhealthy")
	client.goesTo("the other region again", far)
	m.eu.members[0].command("federation", "suspend", m.us.domain)
	eventually(t, "no call goes to the suspended domain", func() error {
		if counts, _ := client.next(20); counts[far] > 0 {
			return fmt.Errorf("%d of 20 calls go there", counts[far])
		}
		return nil
	})
	counts, _ := client.next(50)
	require.Zero(t, counts[far], "calls go to a domain whose trust is suspended")
}
