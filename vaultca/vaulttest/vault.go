// Package vaulttest gives tests a real Vault: [Shared] is one for all tests of a package, [Start] one for a test that
// seals, stops or restarts it. [NewProxy] stands between a Vault and its client, and breaks what goes through.
//
// The server is the program of e2e/vaultdev, a module of its own, which is built once a machine.
package vaulttest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/devbuild"
	"github.com/ententehq/entente/internal/shorttest"
)

// Vault is a running Vault server, unsealed at first.
type Vault struct {
	Address   string
	RootToken string
	UnsealKey string
	// CAFile holds the CA above the certificate of its listener, for ServerName or 127.0.0.1.
	CAFile string

	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

// ServerName is a DNS name in the certificate of the listener.
const ServerName = "vault.test"

type description struct {
	Address   string `json:"address"`
	RootToken string `json:"root_token"`
	UnsealKey string `json:"unseal_key"`
	CA        string `json:"ca"`
	Error     string `json:"error"`
}

var (
	sharedFolder string
	shared       = sync.OnceValues(func() (v *Vault, err error) {
		if sharedFolder, err = os.MkdirTemp("", "vaulttest-"); err != nil {
			return nil, err
		}
		return start(sharedFolder)
	})
)

// Main runs the tests of a package that uses [Shared], stops the shared Vault and removes its files. It returns
// the exit code for TestMain.
func Main(m *testing.M) int {
	code := m.Run()
	if sharedFolder != "" {
		_ = os.RemoveAll(sharedFolder)
	}
	return code
}

// Shared is the Vault of all tests in this process. It ends with the process, since its standard input does.
func Shared(t testing.TB) *Vault {
	t.Helper()
	shorttest.Skip(t, "starts Vault")
	v, err := shared()
	require.NoError(t, err)
	return v
}

// Start starts a Vault for one test.
func Start(t testing.TB) *Vault {
	t.Helper()
	shorttest.Skip(t, "starts Vault")
	v, err := start(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = v.in.Close()
		_ = v.process.Wait()
	})
	return v
}

func start(folder string) (*Vault, error) {
	program, err := devbuild.Program{Module: "vaultdev", Package: "."}.Build(context.Background())
	if err != nil {
		return nil, err
	}
	v := &Vault{CAFile: filepath.Join(folder, "vault-ca.pem"), process: exec.Command(program)}
	v.process.Stderr = os.Stderr
	if v.in, err = v.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := v.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	v.out = bufio.NewReader(out)
	if err := v.process.Start(); err != nil {
		return nil, err
	}
	return v, v.listen()
}

// listen reads one line of the program's output, and writes the CA to its file.
func (v *Vault) listen() error {
	line, err := v.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the output of vaultdev: %w", err)
	}
	var d description
	if err := json.Unmarshal(line, &d); err != nil {
		return fmt.Errorf("read the output of vaultdev: %w", err)
	}
	if d.Error != "" {
		return fmt.Errorf("vaultdev: %s", d.Error)
	}
	v.Address, v.RootToken, v.UnsealKey = d.Address, d.RootToken, d.UnsealKey
	return os.WriteFile(v.CAFile, []byte(d.CA), 0o600)
}

func (v *Vault) command(t testing.TB, line string) {
	t.Helper()
	_, err := fmt.Fprintln(v.in, line)
	require.NoError(t, err)
	require.NoError(t, v.listen())
}

// Stop ends the server but not its storage.
func (v *Vault) Stop(t testing.TB) { t.Helper(); v.command(t, "stop") }

// Resume starts a stopped server on the same address, unsealed.
func (v *Vault) Resume(t testing.TB) { t.Helper(); v.command(t, "start") }

// Reissue gives the listener a certificate from a new CA, which CAFile then holds.
func (v *Vault) Reissue(t testing.TB) { t.Helper(); v.command(t, "reissue") }

// Renew gives the listener another certificate from the same CA.
func (v *Vault) Renew(t testing.TB) { t.Helper(); v.command(t, "renew") }

// Seal seals the server by its own API.
func (v *Vault) Seal(t testing.TB) { t.Helper(); require.NoError(t, v.Client(t).Sys().Seal()) }

// Unseal unseals the server by its own API.
func (v *Vault) Unseal(t testing.TB) {
	t.Helper()
	status, err := v.Client(t).Sys().Unseal(v.UnsealKey)
	require.NoError(t, err)
	require.False(t, status.Sealed)
}

// Client is a client with the root token.
func (v *Vault) Client(t testing.TB) *api.Client {
	t.Helper()
	config := api.DefaultConfig()
	require.NoError(t, config.Error)
	config.Address = v.Address
	require.NoError(t, config.ConfigureTLS(&api.TLSConfig{CACert: v.CAFile}))
	client, err := api.NewClient(config)
	require.NoError(t, err)
	client.SetToken(v.RootToken)
	return client
}

// Write writes with the root token.
func (v *Vault) Write(t testing.TB, path string, data map[string]any) *api.Secret {
	t.Helper()
	secret, err := v.Client(t).Logical().WriteWithContext(t.Context(), path, data)
	require.NoError(t, err, path)
	return secret
}
