package acceptance

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// blocks returns the blocks of a page in a language.
func blocks(t *testing.T, page, language string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1])
	}
	require.NotEmpty(t, all, page)
	return all
}

// Every block of the guides is valid.
func TestGuides(t *testing.T) {
	w := newWorkspace(t)
	pages, err := filepath.Glob("../docs/guides/*.md")
	require.NoError(t, err)
	require.Len(t, pages, 2)
	w.provider = ""
	for _, page := range pages {
		for n, block := range blocks(t, page, "terraform") {
			one := newSibling(w)
			for _, domain := range []string{"us.example.org", "spire.example.org"} {
				file := filepath.Join(one.dir, domain+".json")
				require.NoError(t, os.WriteFile(file, []byte(document(t, domain)), 0o600))
			}
			if !strings.Contains(block, "required_providers") {
				block = header + block
			}
			require.NoError(t, os.WriteFile(filepath.Join(one.dir, "main.tf"), []byte(block), 0o600))
			status, out := one.terraform("validate", "-no-color")
			require.Zero(t, status, "%s, block %d: %s", page, n+1, out)
		}
	}
}

// The lines of the README federate the two regions of the demo, with the provider blocks that the demo prints.
func TestReadmeWithDemo(t *testing.T) {
	w := newWorkspace(t)
	command := filepath.Join(w.dir, "entente")
	out, err := exec.Command("go", "build", "-o", command, "github.com/ententehq/entente/cmd/entente").CombinedOutput()
	require.NoError(t, err, "%s", out)
	demo := exec.Command(command, "demo", "--apart")
	printed, err := demo.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, demo.Start())
	t.Cleanup(func() {
		require.NoError(t, demo.Process.Signal(os.Interrupt))
		require.NoError(t, demo.Wait())
	})
	var lines []string
	for scan := bufio.NewScanner(printed); scan.Scan() && scan.Text() != "Metrics and logs:"; {
		lines = append(lines, scan.Text())
	}
	text := strings.Join(lines, "\n")
	providers := regexp.MustCompile(`(?s)  provider "entente" \{.*?\n  \}`).FindAllString(text, -1)
	require.Len(t, providers, 2, text)
	hcl := blocks(t, "../README.md", "hcl")[0]
	require.LessOrEqual(t, strings.Count(hcl, "\n"), 10)
	hcl = strings.Replace(hcl, "./terraform/modules/federated-pair", module(t, "federated-pair"), 1)
	for _, name := range []string{"EU_ENDPOINT", "US_ENDPOINT"} {
		url := regexp.MustCompile(name + `=(\S+)`).FindStringSubmatch(text)
		require.NotNil(t, url, text)
		hcl = strings.Replace(hcl, name, url[1], 1)
	}
	hcl = strings.Join(providers, "\n") + "\n" + hcl
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "main.tf"), []byte(hcl), 0o600))
	for _, args := range [][]string{
		{"get"}, {"apply", "-auto-approve"}, {"plan", "-detailed-exitcode"}, {"destroy", "-auto-approve"},
	} {
		status, out := w.terraform(append(args, "-no-color")...)
		require.Zero(t, status, out)
	}
}
