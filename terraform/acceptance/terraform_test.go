// Package acceptance runs the real terraform with the provider against a real member, and OpenTofu where that is built.
package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/devbuild"
	"github.com/ententehq/entente/internal/shorttest"
	"github.com/ententehq/entente/node/nodetest"
)

var (
	member *nodetest.Member
	// binary is terraform, or OpenTofu where that is missing.
	binary string
	// configFile makes terraform use the provider that this test has built.
	configFile string
)

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	if flag.Parse(); testing.Short() {
		return m.Run(), nil
	}
	if binary, err = exec.LookPath("terraform"); err != nil {
		if binary, err = devbuild.OpenTofu.Built(context.Background()); err != nil {
			return 0, err
		}
	}
	if binary == "" {
		fmt.Println("left out: the tests of the Terraform provider need terraform on the PATH, or OpenTofu: make peers")
		return 0, missing()
	}
	dir, err := os.MkdirTemp("", "entente-terraform-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "terraform-provider-entente"),
		"github.com/ententehq/entente/cmd/terraform-provider-entente")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build the provider: %w: %s", err, out)
	}
	configFile = filepath.Join(dir, "terraform.rc")
	config := fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"ententehq/entente\" = %q\n  }\n"+
		"  direct {}\n}\n", dir)
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		return 0, err
	}
	if member, err = nodetest.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, member.Close()) }()
	return m.Run(), nil
}

// missing returns an error where nothing may be left out.
func missing() error {
	if os.Getenv("CI") != "" {
		return errors.New("neither terraform nor OpenTofu is here, and in CI nothing is left out")
	}
	return nil
}

// workspace is a folder with a configuration and a state.
type workspace struct {
	testing.TB
	dir string
	// binary runs the provider, and member is the cluster.
	binary string
	member *nodetest.Member
	// env is added to the environment of terraform.
	env []string
	// provider is the provider block.
	provider string
}

const header = `
terraform {
  required_providers {
    entente = { source = "ententehq/entente" }
  }
}
`

// emptyProvider takes everything from the environment.
const emptyProvider = "provider \"entente\" {}\n"

func newWorkspace(t *testing.T) *workspace {
	shorttest.Skip(t, "it runs terraform")
	t.Parallel()
	return workspaceFor(t, binary, member)
}

func workspaceFor(t testing.TB, binary string, member *nodetest.Member) *workspace {
	return &workspace{TB: t, dir: t.TempDir(), binary: binary, member: member, provider: emptyProvider}
}

// administrator returns a client with the rights of the local administrator.
func (w *workspace) administrator() *client.Client {
	w.Helper()
	c, err := client.New(w.Context(), client.WithAdminSocket(w.member.Socket))
	require.NoError(w, err)
	w.Cleanup(func() { require.NoError(w, c.Close()) })
	return c
}

// configure replaces the configuration.
func (w *workspace) configure(hcl string) {
	w.Helper()
	require.NoError(w, os.WriteFile(filepath.Join(w.dir, "main.tf"), []byte(header+w.provider+hcl), 0o600))
}

// terraform runs a command of terraform and returns its exit status and what it prints.
func (w *workspace) terraform(args ...string) (int, string) {
	w.Helper()
	cmd := exec.Command(w.binary, args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+configFile, "ENTENTE_SOCKET="+w.member.Socket,
		"ENTENTE_ADDRESS=", "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1")
	cmd.Env = append(cmd.Env, w.env...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		require.NoError(w, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// apply applies a configuration and sees that a plan after it is empty.
func (w *workspace) apply(hcl string) string {
	w.Helper()
	w.configure(hcl)
	status, out := w.terraform("apply", "-auto-approve", "-no-color")
	require.Zero(w, status, out)
	w.unchanged()
	return out
}

// unchanged sees that a plan is empty.
func (w *workspace) unchanged() {
	w.Helper()
	status, out := w.terraform("plan", "-detailed-exitcode", "-no-color")
	require.Zero(w, status, out)
}

// plans returns the plan of a configuration that makes changes.
func (w *workspace) plans(hcl string) string {
	w.Helper()
	w.configure(hcl)
	status, out := w.terraform("plan", "-detailed-exitcode", "-no-color")
	require.Equal(w, 2, status, out)
	return out
}

// refused sees that a command fails, and returns what it prints, with the frame and line breaks taken out.
func (w *workspace) refused(hcl string, args ...string) string {
	w.Helper()
	w.configure(hcl)
	status, out := w.terraform(append(args, "-no-color")...)
	require.Equal(w, 1, status, out)
	return strings.Join(strings.Fields(strings.ReplaceAll(out, "│", " ")), " ")
}

// destroy destroys everything.
func (w *workspace) destroy() {
	w.Helper()
	status, out := w.terraform("destroy", "-auto-approve", "-no-color")
	require.Zero(w, status, out)
}

// state returns the values of a resource in the state.
func (w *workspace) state(address string) map[string]any {
	w.Helper()
	status, out := w.terraform("show", "-json")
	require.Zero(w, status, out)
	var shown struct {
		Values struct {
			Root struct {
				Resources []struct {
					Address string
					Values  map[string]any
				}
			} `json:"root_module"`
		}
	}
	start := bytes.IndexByte([]byte(out), '{')
	require.GreaterOrEqual(w, start, 0, out)
	require.NoError(w, json.Unmarshal([]byte(out[start:]), &shown), out)
	for _, r := range shown.Values.Root.Resources {
		if r.Address == address {
			return r.Values
		}
	}
	require.Fail(w, "the state has no "+address, out)
	return nil
}

// newSibling returns a workspace with another state in the same test.
func newSibling(w *workspace) *workspace {
	return workspaceFor(w.TB, w.binary, w.member)
}
