package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	docMetric  = regexp.MustCompile(`\bentente_[a-z0-9_]+`)
	docLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docHeading = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	docRow     = regexp.MustCompile(`(?m)^\| (.+?) \| .* \|$`)
	docQuote   = regexp.MustCompile("`([^`]+)`")
	notAnchor  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// pages returns the Markdown pages of the repository by their path from its root.
func pages(t *testing.T) map[string]string {
	found := map[string]string{}
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../docs/*/*.md", "../examples/*.md"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			found[filepath.ToSlash(strings.TrimPrefix(file, "../"))] = string(text)
		}
	}
	require.Contains(t, found, "docs/operating/run-book.md")
	return found
}

// literals returns all string literals of the product's code, one per line.
func literals(t *testing.T) string {
	var all strings.Builder
	files := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
			strings.HasSuffix(path, ".pb.go") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text, ok := constant(n); ok {
				all.WriteString(text + "\n")
				return false
			}
			return true
		})
		return nil
	})
	require.NoError(t, err)
	return all.String()
}

// constant returns the value of a string literal, or of a sum of string literals.
func constant(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.BasicLit:
		if n.Kind == token.STRING {
			text, err := strconv.Unquote(n.Value)
			return text, err == nil
		}
	case *ast.BinaryExpr:
		left, leftOK := constant(n.X)
		right, rightOK := constant(n.Y)
		return left + right, n.Op == token.ADD && leftOK && rightOK
	}
	return "", false
}

// TestRunBookQuotesRealLines requires that each log line in the first column of a run book occurs in the code.
// An ellipsis stands for any text.
func TestRunBookQuotesRealLines(t *testing.T) {
	code := literals(t)
	quoted := 0
	for path, text := range pages(t) {
		if !strings.HasPrefix(path, "docs/operating/run-book") {
			continue
		}
		for _, row := range docRow.FindAllStringSubmatch(text, -1) {
			for _, quote := range docQuote.FindAllStringSubmatch(row[1], -1) {
				if !strings.Contains(quote[1], " ") {
					continue // a name, such as a metric or the result of a fetch
				}
				quoted++
				for part := range strings.SplitSeq(quote[1], "…") {
					assert.True(t, strings.Contains(code, strings.TrimSpace(part)),
						"%s quotes %q, which the code does not have", path, part)
				}
			}
		}
	}
	assert.Greater(t, quoted, 20, "the run books quote no lines")
}

// TestDocsNameRealMetrics requires that each metric in the documentation is registered by the code.
func TestDocsNameRealMetrics(t *testing.T) {
	code := literals(t)
	for path, text := range pages(t) {
		for _, name := range docMetric.FindAllString(text, -1) {
			assert.True(t, registered(code, name), "%s names the metric %s, which the code does not have", path, name)
		}
	}
}

// registered reports whether the code has the name of a metric as one literal, or as a prefix and a rest.
func registered(code, name string) bool {
	has := func(literal string) bool { return strings.Contains(code, "\n"+literal+"\n") }
	for i := range name {
		if name[i] == '_' && has(name[:i+1]) && has(name[i+1:]) {
			return true
		}
	}
	return has(name)
}

// TestDocsLinkToRealPages requires that relative links lead to a file and, where they name one, to a heading.
func TestDocsLinkToRealPages(t *testing.T) {
	all := pages(t)
	for path, text := range all {
		for _, link := range docLink.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := path
			if target != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(path), target))
				_, err := os.Stat(filepath.Join("..", to))
				assert.NoError(t, err, "%s links to %s", path, link[1])
			}
			if anchor != "" {
				assert.Contains(t, anchors(all[to]), anchor, "%s links to %s", path, link[1])
			}
		}
	}
}

// anchors returns the anchors of a page's headings, as GitHub derives them.
func anchors(page string) (all []string) {
	for _, heading := range docHeading.FindAllStringSubmatch(page, -1) {
		name := notAnchor.ReplaceAllString(strings.ToLower(heading[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// TestOperatingPagesAreShort keeps the pages for operators to three screens, each with a table of contents.
func TestOperatingPagesAreShort(t *testing.T) {
	for path, text := range pages(t) {
		if !strings.HasPrefix(path, "docs/operating/") {
			continue
		}
		assert.LessOrEqual(t, strings.Count(text, "\n"), 150, "%s does not fit on three screens", path)
		if strings.HasSuffix(path, "/index.md") {
			continue
		}
		assert.Contains(t, text, "\n- [", "%s has no table of contents", path)
	}
}

// TestDocsNameEveryReason requires a row in the page of errors for each reason of the API, and no row for another.
func TestDocsNameEveryReason(t *testing.T) {
	const source = "../internal/apierror/reason.go"
	file, err := parser.ParseFile(token.NewFileSet(), source, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	var reasons, rows []string
	ast.Inspect(file, func(n ast.Node) bool {
		group, ok := n.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST || len(group.Specs) < 2 {
			return true
		}
		for _, spec := range group.Specs {
			text, ok := constant(spec.(*ast.ValueSpec).Values[0])
			require.True(t, ok)
			reasons = append(reasons, "`"+text+"`")
		}
		return false
	})
	require.NotEmpty(t, reasons)
	for _, row := range docRow.FindAllStringSubmatch(pages(t)["docs/operating/errors.md"], -1) {
		if name, _, _ := strings.Cut(row[1], " | "); strings.HasPrefix(name, "`") {
			rows = append(rows, name)
		}
	}
	assert.ElementsMatch(t, reasons, rows)
}

var (
	docStep = regexp.MustCompile("`([a-z0-9]+(?:/[a-z0-9]+)*(?:\\.[A-Za-z0-9]+){1,2})`")
)

// TestArchitectureNamesRealFunctions requires that each function of docs/ARCHITECTURE.md, written as folder.Function or
// folder.Type.Method, exists.
func TestArchitectureNamesRealFunctions(t *testing.T) {
	page := pages(t)["docs/ARCHITECTURE.md"]
	known := map[string]bool{}
	for folder, files := range sourceFiles(t) {
		for _, file := range files {
			for _, declaration := range file.Decls {
				f, ok := declaration.(*ast.FuncDecl)
				if !ok {
					continue
				}
				name := folder + "."
				if f.Recv != nil {
					name += receiver(f.Recv.List[0].Type) + "."
				}
				known[name+f.Name.Name] = true
			}
		}
	}
	steps := docStep.FindAllStringSubmatch(page, -1)
	require.Greater(t, len(steps), 40, "docs/ARCHITECTURE.md names no functions")
	for _, step := range steps {
		if strings.HasSuffix(step[1], ".go") {
			continue
		}
		assert.True(t, known[step[1]], "docs/ARCHITECTURE.md names %s, which does not exist", step[1])
	}
}
