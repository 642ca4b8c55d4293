package demo_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/cmd/entente/demo"
	"github.com/ententehq/entente/internal/shorttest"
)

// build returns the path of the real binary, of which the demo starts members.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "entente")
	out, err := exec.Command("go", "build", "-o", path, "github.com/ententehq/entente/cmd/entente").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// TestTwiceAtOnce runs the whole demo, and another one beside it. Both hold, and nothing is left of either.
func TestTwiceAtOnce(t *testing.T) {
	shorttest.Skip(t, "runs the demo")
	executable := build(t)
	t.Setenv("TMPDIR", t.TempDir())
	var demos sync.WaitGroup
	for range 2 {
		demos.Go(func() {
			var out, complaints bytes.Buffer
			err := demo.Run(
				t.Context(),
				demo.Options{Once: true, JSON: true, Stdout: &out, Stderr: &complaints, Executable: executable},
			)
			if !held(out.Bytes()) || err != nil {
				t.Errorf("%v\n%s%s", err, out.Bytes(), complaints.Bytes())
			}
		})
	}
	demos.Wait()
	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	require.Empty(t, left)
}

func held(output []byte) bool {
	var result struct {
		OK    bool `json:"ok"`
		Steps []struct {
			OK     bool   `json:"ok"`
			Name   string `json:"name"`
			Detail string `json:"detail"`
		} `json:"steps"`
	}
	if json.Unmarshal(output, &result) != nil || !result.OK || len(result.Steps) != 9 {
		return false
	}
	for _, s := range result.Steps {
		if !s.OK || s.Name == "" || s.Detail == "" {
			return false
		}
	}
	return true
}

// TestChildrenEndWithTheDemo kills a demo in the middle. Its members end by themselves, and the next demo finds nothing
// in its way.
func TestChildrenEndWithTheDemo(t *testing.T) {
	shorttest.Skip(t, "runs the demo")
	executable := build(t)
	t.Setenv("TMPDIR", t.TempDir())
	c := exec.Command(executable, "demo")
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	lines := bufio.NewScanner(out)
	formed := false
	for !formed && lines.Scan() {
		formed = strings.HasPrefix(lines.Text(), "✓ Two clusters form")
	}
	sockets, err := filepath.Glob(filepath.Join(os.TempDir(), "entente-demo-*", "*", "data", "admin.sock"))
	require.NoError(t, err)
	require.NoError(t, c.Process.Signal(syscall.SIGKILL))
	_ = c.Wait()
	require.True(t, formed)
	require.Len(t, sockets, 6)
	for _, s := range sockets {
		require.Eventually(t, func() bool {
			conn, err := net.Dial("unix", s)
			if err == nil {
				_ = conn.Close()
			}
			return err != nil
		}, 30*time.Second, 50*time.Millisecond, "%s still answers", s)
	}
}
