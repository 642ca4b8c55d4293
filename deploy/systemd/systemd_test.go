// Package systemd has the units and the sample configurations that packages install.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/config"
)

// analyze returns the path of systemd-analyze. Where a check must not be left out, it must be there.
func analyze(t *testing.T) string {
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("systemd-analyze is missing: install systemd")
		}
		t.Skip("left out: systemd-analyze is missing")
	}
	return path
}

// maxExposure is ten times the bound of the exposure level of systemd-analyze.
const maxExposure = "20"

func TestUnitsAreConfined(t *testing.T) {
	units, err := filepath.Glob("*.service")
	require.NoError(t, err)
	require.Contains(t, units, "entente.service")
	out, err := exec.Command(analyze(t), "security", "--offline=true", "--no-pager", "--threshold="+maxExposure,
		"./entente.service").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "Overall exposure level for entente.service: 1.")
}

// executables matches the commands of a unit, which are not on the machine of the test.
var executables = regexp.MustCompile(`(?m)^(Exec\w+=)(/usr/bin/entente|/bin/kill)`)

func TestUnitIsValid(t *testing.T) {
	verify := analyze(t)
	unit, err := os.ReadFile("entente.service")
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	require.Len(t, executables.FindAll(unit, -1), 3)
	file := filepath.Join(t.TempDir(), "entente.service")
	require.NoError(t, os.WriteFile(file, executables.ReplaceAll(unit, []byte("${1}"+self)), 0o600))
	out, err := exec.Command(verify, "verify", "--man=no", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "entente.service:", "systemd-analyze has something to say of the unit")
}

// The sample is a configuration, as it is and with what it has as comments.
func TestSample(t *testing.T) {
	sample, err := os.ReadFile("entente.hcl")
	require.NoError(t, err)
	cfg, err := config.Load("entente.hcl")
	require.NoError(t, err)
	require.Equal(t, "/var/lib/entente", cfg.Member.DataDir)
	file := filepath.Join(t.TempDir(), "entente.hcl")
	commented := regexp.MustCompile(`(?m)^#(join|authority|}|  (?:addresses|token|keys|}|  encryption))`)
	whole := commented.ReplaceAllString(string(sample), "$1")
	require.NoError(t, os.WriteFile(file, []byte(whole), 0o600))
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/credentials/entente.service")
	cfg, err = config.Load(file)
	require.NoError(t, err)
	require.Equal(t, "file:$CREDENTIALS_DIRECTORY/join-token", cfg.Join.Token.String())
	unit, err := os.ReadFile("entente.service")
	require.NoError(t, err)
	for _, name := range []string{"join-token", "wrapping-key"} {
		require.Contains(t, strings.ReplaceAll(string(unit), "#", ""), "LoadCredential="+name+":/etc/entente/"+name)
	}
}
