// Package kubetest gives tests a real Kubernetes API server, by [Start]. No other component of Kubernetes runs.
//
// The server is the program of e2e/kubedev, a module of its own. Its first build takes minutes, so that a test without
// it is left out by name, except in CI, which builds it; `make peers` builds it too.
package kubetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ententehq/entente/internal/devbuild"
	"github.com/ententehq/entente/internal/shorttest"
)

// program is the API server.
var program = devbuild.Program{Module: "kubedev", Package: "."}

// Server is a running API server.
type Server struct {
	// Kubeconfig is the path of the administrator's.
	Kubeconfig string

	dir, address string
	process      *exec.Cmd
	in           io.WriteCloser
}

// Start starts an API server for one test.
func Start(t testing.TB) *Server {
	t.Helper()
	need(t)
	s := &Server{dir: t.TempDir()}
	require.NoError(t, s.start())
	t.Cleanup(s.stop)
	return s
}

// need leaves the test out if what it needs is missing, except in CI.
func need(t testing.TB) {
	t.Helper()
	shorttest.Skip(t, "starts a Kubernetes API server")
	ci := os.Getenv("CI") != ""
	if _, err := exec.LookPath("kubectl"); err != nil {
		require.False(t, ci, "kubectl is not on the PATH")
		t.Skip("left out: needs the command kubectl, which is not on the PATH")
	}
	if ci {
		return
	}
	built, err := program.Built(context.Background())
	require.NoError(t, err)
	if built == "" {
		t.Skip("left out: needs a Kubernetes API server, which is not built yet: make peers")
	}
}

// Stop ends the server but not its storage.
func (s *Server) Stop(testing.TB) { s.stop() }

// Resume starts a stopped server on the same address.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	require.NoError(t, s.start())
}

// Config returns the administrator's connection.
func (s *Server) Config(t testing.TB) *rest.Config {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	require.NoError(t, err)
	cfg.QPS = -1
	return cfg
}

// Kubectl runs kubectl as the administrator, and returns what it prints. Input, if not empty, is what it reads.
func (s *Server) Kubectl(t testing.TB, input string, args ...string) string {
	t.Helper()
	out, err := s.kubectl(t.Context(), input, args...)
	require.NoError(t, err, "kubectl %v: %s", args, out)
	return out
}

// Refuses runs kubectl as the administrator, which must fail, and returns what it prints.
func (s *Server) Refuses(t testing.TB, input string, args ...string) string {
	t.Helper()
	out, err := s.kubectl(t.Context(), input, args...)
	require.Error(t, err, "kubectl %v: %s", args, out)
	return out
}

// KubectlAfter runs kubectl as the administrator at the end of a test, whose outcome it does not change.
func (s *Server) KubectlAfter(input string, args ...string) {
	_, _ = s.kubectl(context.Background(), input, args...)
}

func (s *Server) kubectl(ctx context.Context, input string, args ...string) (string, error) {
	run := exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig", s.Kubeconfig}, args...)...)
	run.Env = append(os.Environ(), "HOME="+s.dir) // its cache of what the server serves
	run.Stdin = bytes.NewBufferString(input)
	out, err := run.CombinedOutput()
	return string(out), err
}

func (s *Server) start() error {
	path, err := program.Build(context.Background())
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{s.dir}
	if s.address != "" {
		args = append(args, s.address)
	}
	s.process = exec.Command(path, args...)
	s.process.Stderr = log
	if s.in, err = s.process.StdinPipe(); err != nil {
		return err
	}
	out, err := s.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.process.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		ended := s.process.Wait()
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("kubedev: %w\n%s", errors.Join(err, ended), text[max(0, len(text)-4096):])
	}
	var d struct {
		Address    string `json:"address"`
		Kubeconfig string `json:"kubeconfig"`
	}
	if err := json.Unmarshal(line, &d); err != nil {
		return fmt.Errorf("read the output of kubedev: %w", err)
	}
	s.address, s.Kubeconfig = d.Address, d.Kubeconfig
	return nil
}

// stop kills the process: a server that is lost does not say goodbye.
func (s *Server) stop() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// Account returns the connection of a service account.
func (s *Server) Account(t testing.TB, namespace, name string) *rest.Config {
	t.Helper()
	token := s.Kubectl(t, "", "create", "token", name, "--namespace", namespace, "--duration", "24h")
	cfg := s.Config(t)
	return &rest.Config{
		Host: cfg.Host, BearerToken: string(bytes.TrimSpace([]byte(token))), QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: cfg.CAData},
	}
}
