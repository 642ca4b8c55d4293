package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	namedTest    = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)")
	declaredTest = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
	itemRow      = regexp.MustCompile(`(?m)^\| ([0-9]+) \|.*$`)
)

// TestConformanceNamesTestsThatExist holds docs/CONFORMANCE.md to the tree: each item names a test, and each named test is there.
func TestConformanceNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../docs/CONFORMANCE.md")
	require.NoError(t, err)
	declared := map[string]bool{}
	err = filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, match := range declaredTest.FindAllSubmatch(source, -1) {
			declared[string(match[1])] = true
		}
		return err
	})
	require.NoError(t, err)
	for _, match := range namedTest.FindAllSubmatch(page, -1) {
		require.True(t, declared[string(match[1])], "docs/CONFORMANCE.md names %s, which is no test of this tree", match[1])
	}
	rows := itemRow.FindAllSubmatch(page, -1)
	require.Len(t, rows, 34, "items 1 to 34 have a row each; 35 and 36 are not served")
	for _, row := range rows {
		require.Regexp(t, namedTest, string(row[0]), "item %s names no test", row[1])
	}
}
