package acceptance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The examples of the documentation are valid, and every resource, data source and function has one.
func TestExamples(t *testing.T) {
	w := newWorkspace(t)
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "us.example.org.json"),
		[]byte(document(t, "us.example.org")), 0o600))
	files, err := filepath.Glob("../examples/*/*/*.tf")
	require.NoError(t, err)
	have := map[string]bool{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		name := filepath.Base(filepath.Dir(file))
		have[name] = true
		copied := filepath.Join(w.dir, strings.TrimSuffix(filepath.Base(file), ".tf")+"-"+name+".tf")
		require.NoError(t, os.WriteFile(copied, content, 0o600))
	}
	pages, err := filepath.Glob("../docs/*/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, pages)
	for _, page := range pages {
		if filepath.Base(filepath.Dir(page)) == "guides" {
			continue // TestGuides
		}
		name := strings.TrimSuffix(filepath.Base(page), ".md")
		require.True(t, have[name] || have["entente_"+name], "%s has no example", page)
	}
	w.provider = ""
	w.configure("")
	status, out := w.terraform("validate", "-no-color")
	require.Zero(t, status, out)
}
