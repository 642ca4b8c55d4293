package workload

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// started runs a script in a user and a mount namespace of its own. The script prints a line and becomes the program
// to attest.
func started(t *testing.T, script string) int32 {
	t.Helper()
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", script)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start(), "unshare is missing: install util-linux")
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "the script failed: user and mount namespaces are needed")
	require.Equal(t, "ready\n", line)
	return int32(cmd.Process.Pid) //nolint:gosec // a PID
}

// program returns the selectors of the process of a script.
func program(t *testing.T, script string) []string {
	t.Helper()
	selectors, err := Unix{}.Attest(t.Context(), Process{PID: started(t, script)})
	require.NoError(t, err)
	return selectors
}

// copied returns the path of a copy of tail, the program of these tests: it prints the line of a file, and waits.
func copied(t *testing.T, dir string) string {
	t.Helper()
	tail, err := exec.LookPath("tail")
	require.NoError(t, err)
	content, err := os.ReadFile(tail)
	require.NoError(t, err)
	path := filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(path, content, 0o755)) //nolint:gosec // a program
	return path
}

func hasPath(selectors []string) bool {
	return slices.ContainsFunc(selectors, func(s string) bool { return strings.HasPrefix(s, "path:") })
}

// TestPathIsOneOfTheAgentsFiles tests that a process has the path selector of a program only if it runs the file that
// the agent has there, not another one that it has mounted there, and not one that was deleted.
func TestPathIsOneOfTheAgentsFiles(t *testing.T) {
	trusted, other := copied(t, t.TempDir()), copied(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "line")
	require.NoError(t, os.WriteFile(file, []byte("ready\n"), 0o600))
	run := func(prepare, path string) []string {
		return program(t, fmt.Sprintf("%s exec %s -f %s", prepare, path, file))
	}
	require.Contains(t, run("", trusted), "path:"+trusted)
	spoofed := run(fmt.Sprintf("mount --bind %s %s;", other, trusted), trusted)
	require.False(t, hasPath(spoofed), "another file is mounted over the program: %v", spoofed)

	// The whole folder is mounted over the trusted one, as a container has it.
	spoofed = run(fmt.Sprintf("mount --bind %s %s;", filepath.Dir(other), filepath.Dir(trusted)), trusted)
	require.False(t, hasPath(spoofed), "another folder: %v", spoofed)
	// A name of its own for the right program proves nothing about that name.
	elsewhere := run(fmt.Sprintf("mount --bind %s %s;", trusted, other), other)
	require.NotContains(t, elsewhere, "path:"+other)

	pid := started(t, fmt.Sprintf("exec %s -f %s", other, file))
	require.NoError(t, os.Remove(other))
	selectors, err := Unix{}.Attest(t.Context(), Process{PID: pid})
	require.NoError(t, err)
	require.False(t, hasPath(selectors), "a deleted program: %v", selectors)
}
