package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var edgeTests = regexp.MustCompile("^([a-z0-9/]+): (`Test[A-Za-z0-9_]+`(?:, `Test[A-Za-z0-9_]+`)*)$")

// TestEdgesNameTestsThatExist requires tests for each edge in docs/security.md, in the packages that it names.
func TestEdgesNameTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../docs/security.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(page), "| edge | tests |\n| --- | --- |\n")
	require.True(t, ok, "docs/security.md has no table of edges")
	rows := strings.Split(strings.TrimSpace(table), "\n")
	require.Greater(t, len(rows), 20)
	for _, row := range rows {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		if !assert.Len(t, cells, 2, "%s", row) {
			continue
		}
		for part := range strings.SplitSeq(cells[1], "; ") {
			match := edgeTests.FindStringSubmatch(part)
			if !assert.NotNil(t, match, "%q names no tests of a package", part) {
				continue
			}
			files, err := filepath.Glob(filepath.Join("..", match[1], "*_test.go"))
			require.NoError(t, err)
			var source strings.Builder
			for _, file := range files {
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				source.Write(text)
			}
			for name := range strings.SplitSeq(match[2], ", ") {
				name = strings.Trim(name, "`")
				assert.Contains(t, source.String(), "\nfunc "+name+"(t *testing.T) {", "%s has no %s", match[1], name)
			}
		}
	}
}
