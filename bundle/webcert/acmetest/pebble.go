// Package acmetest gives tests a real ACME server: Let's Encrypt's Pebble, as the program of e2e/pebbledev, which it
// builds once a test binary.
package acmetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/shorttest"
)

// Options are the settings of the server.
type Options struct {
	// Listen is where it listens; empty: anywhere on loopback.
	Listen string
	// Certificate is a file that keeps the certificate of its listener from one start to the next; empty: nothing does.
	Certificate string
	// Endpoint is the address whose port it connects to, at 127.0.0.1, to see whether a host name leads there.
	Endpoint string
	// ValidSeconds is the lifetime of certificates; 0 is an hour.
	ValidSeconds int
	// Block is a host name that it gives no certificate for.
	Block string
	// ExternalAccount is ID:KEY, with which accounts have to be bound; empty: with none.
	ExternalAccount string
}

// Pebble is a running ACME server. Every host name resolves to 127.0.0.1 for it.
type Pebble struct {
	// Directory is the URL of its directory, and CA the root of its own listener in PEM.
	Directory string `json:"directory"`
	CA        string `json:"ca"`
	// Root is the root of the certificates that it gives, in PEM.
	Root string `json:"root"`
}

// CAFile writes CA to a file, and returns its name.
func (p *Pebble) CAFile(t testing.TB) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "acme-ca.pem")
	require.NoError(t, os.WriteFile(name, []byte(p.CA), 0o600))
	return name
}

// program builds e2e/pebbledev. Go's build cache keeps what that costs; the program itself is kept for this process.
var program = sync.OnceValues(func() ([]byte, error) {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w", err)
	}
	folder, err := os.MkdirTemp("", "pebbledev-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	name := filepath.Join(folder, "pebbledev")
	var output strings.Builder
	build := exec.Command("go", "build", "-buildvcs=false", "-o", name, ".")
	build.Dir = filepath.Join(filepath.Dir(strings.TrimSpace(string(gomod))), "e2e", "pebbledev")
	build.Env, build.Stdout, build.Stderr = append(os.Environ(), "GOWORK=off", "GOFLAGS="), &output, &output
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf(
			"build the ACME server %s, which needs the Go module proxy the first time: %w\n%s",
			build.Dir,
			err,
			output.String(),
		)
	}
	return os.ReadFile(name)
})

// Start runs an ACME server until the test ends, or until stop.
func Start(t testing.TB, o Options) (p *Pebble, stop func()) {
	t.Helper()
	shorttest.Skip(t, "starts an ACME server")
	raw, err := program()
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "pebbledev")
	require.NoError(t, os.WriteFile(name, raw, 0o700)) //nolint:gosec // a program
	_, port, err := net.SplitHostPort(o.Endpoint)
	require.NoError(t, err)
	args := []string{
		"-tls-port",
		port,
		"-block",
		o.Block,
		"-external-account",
		o.ExternalAccount,
		"-certificate",
		o.Certificate,
	}
	if o.Listen != "" {
		args = append(args, "-listen", o.Listen)
	}
	if o.ValidSeconds != 0 {
		args = append(args, "-validity", strconv.Itoa(o.ValidSeconds))
	}
	ctx, cancel := context.WithCancel(context.Background())
	process := exec.CommandContext(ctx, name, args...)
	var log bytes.Buffer // written by one goroutine, which has ended when Wait returns
	process.Stderr = &log
	_, err = process.StdinPipe()
	require.NoError(t, err)
	out, err := process.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, process.Start())
	p = new(Pebble)
	err = json.NewDecoder(out).Decode(p)
	stop = sync.OnceFunc(func() {
		cancel()
		_ = process.Wait() // it was killed
		if t.Failed() {
			t.Logf("log of the ACME server:\n%s", log.String())
		}
	})
	t.Cleanup(stop)
	require.NoError(t, err, "the ACME server printed nothing")
	return p, stop
}
