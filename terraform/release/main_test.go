package main

import (
	"archive/zip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/shorttest"
)

// A release has the files that a registry requires, and is the same bytes again.
func TestRelease(t *testing.T) {
	shorttest.Skip(t, "it builds the provider twice")
	platform := runtime.GOOS + "_" + runtime.GOARCH
	var all [2]map[string]string
	for i := range all {
		dir := t.TempDir()
		require.NoError(t, release("v1.2.3", dir, []string{platform}))
		all[i] = map[string]string{}
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, file := range files {
			content, err := os.ReadFile(filepath.Join(dir, file.Name()))
			require.NoError(t, err)
			all[i][file.Name()] = string(content)
		}
		const base = "terraform-provider-entente_1.2.3_"
		require.Len(t, files, 3)
		require.Contains(t, all[i][base+"manifest.json"], `"protocol_versions": ["6.0"]`)
		check := exec.Command("sha256sum", "--check", "--strict", base+"SHA256SUMS")
		check.Dir = dir
		out, err := check.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, 2, strings.Count(string(out), ": OK"))
		packed, err := zip.OpenReader(filepath.Join(dir, base+platform+".zip"))
		require.NoError(t, err)
		require.Len(t, packed.File, 1)
		require.Equal(t, "terraform-provider-entente_v1.2.3", packed.File[0].Name)
		require.Equal(t, os.FileMode(0o755), packed.File[0].Mode())
		require.NoError(t, packed.Close())
	}
	require.Equal(t, all[0], all[1])
}

func TestVersion(t *testing.T) {
	require.ErrorContains(t, release("next", t.TempDir(), nil), `"next" is not a version`)
}
