package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	namedTest    = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)")
	declaredTest = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
	namedCase    = regexp.MustCompile("`(?:Test[A-Za-z0-9_]+)?/([^`]+)`")
	itemRow      = regexp.MustCompile(`(?m)^\| ([0-9]+) \|.*\| (.*) \|$`)
	inPackage    = regexp.MustCompile(`^([a-z0-9/]+): `)
)

// TestConformanceNamesTestsThatExist holds docs/CONFORMANCE.md to the tree: each item names a test, and each named test
// is there, in the package that the item names, and so are the cases that are named with it.
func TestConformanceNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../docs/CONFORMANCE.md")
	require.NoError(t, err)
	var sources strings.Builder
	declared := map[string][]string{} // the packages, by the name of a test
	err = filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		sources.Write(source)
		for _, match := range declaredTest.FindAllSubmatch(source, -1) {
			declared[string(match[1])] = append(declared[string(match[1])], filepath.ToSlash(filepath.Dir(path)))
		}
		return err
	})
	require.NoError(t, err)
	for _, match := range namedTest.FindAllSubmatch(page, -1) {
		assert.NotEmpty(
			t, declared[string(match[1])], "docs/CONFORMANCE.md names %s, which is no test of this tree", match[1],
		)
	}
	for _, match := range namedCase.FindAllSubmatch(page, -1) {
		name := strings.ReplaceAll(string(match[1]), "_", " ")
		assert.True(
			t,
			strings.Contains(sources.String(), `"`+name+`"`) ||
				strings.Contains(sources.String(), `"`+string(match[1])+`"`),
			"docs/CONFORMANCE.md names the case %q, which no test of this tree has",
			name,
		)
	}
	rows := itemRow.FindAllSubmatch(page, -1)
	require.Len(t, rows, 36, "items 1 to 36 have a row each")
	for _, row := range rows {
		assert.Regexp(t, namedTest, string(row[2]), "item %s names no test", row[1])
		room := ""
		for part := range strings.SplitSeq(string(row[2]), "; ") {
			if match := inPackage.FindStringSubmatch(part); match != nil {
				room = match[1]
			}
			for _, match := range namedTest.FindAllStringSubmatch(part, -1) {
				assert.True(
					t,
					slices.ContainsFunc(
						declared[match[1]],
						func(dir string) bool { return strings.HasSuffix(dir, "/"+room) },
					),
					"item %s names %s in package %s; it is in %v",
					row[1],
					match[1],
					room,
					declared[match[1]],
				)
			}
		}
	}
}
