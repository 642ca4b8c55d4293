package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	// maxFolderFiles is the number of Go files that a folder may have beside tests and generated ones.
	maxFolderFiles = 20
	// maxTypeMethods is the number of methods that a type may have beside the RPCs of a gRPC service.
	maxTypeMethods = 25
)

// sourceFiles parses the tracked Go files beside tests and generated ones, by folder.
func sourceFiles(t *testing.T) map[string][]*ast.File {
	out, err := exec.Command("git", "-C", "..", "ls-files", "*.go").Output()
	require.NoError(t, err)
	folders := map[string][]*ast.File{}
	files := token.NewFileSet()
	for path := range strings.FieldsSeq(string(out)) {
		if strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".pb.go") {
			continue
		}
		file, err := parser.ParseFile(files, filepath.Join("..", path), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		folders[filepath.Dir(path)] = append(folders[filepath.Dir(path)], file)
	}
	require.Greater(t, len(folders), 20, "the folders of the repository were not found")
	return folders
}

// TestFoldersFitOnAScreen bounds the Go files of a folder.
func TestFoldersFitOnAScreen(t *testing.T) {
	for folder, files := range sourceFiles(t) {
		assert.LessOrEqual(t, len(files), maxFolderFiles, "%s has too many files: divide it", folder)
	}
}

// TestTypesHaveOneJob bounds the methods of a type.
func TestTypesHaveOneJob(t *testing.T) {
	for folder, files := range sourceFiles(t) {
		methods := map[string]int{}
		for _, file := range files {
			for _, declaration := range file.Decls {
				if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv != nil && !isRPC(f) {
					methods[receiver(f.Recv.List[0].Type)]++
				}
			}
		}
		for name, n := range methods {
			assert.LessOrEqual(t, n, maxTypeMethods, "%s.%s has too many methods: divide it", folder, name)
		}
	}
}

// receiver returns the name of a receiver's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// isRPC reports whether a method implements an RPC: its last parameter is a request or a server stream.
func isRPC(f *ast.FuncDecl) bool {
	params := f.Type.Params.List
	if !f.Name.IsExported() || len(params) == 0 {
		return false
	}
	var name string
	switch e := params[len(params)-1].Type.(type) {
	case *ast.StarExpr:
		if selector, ok := e.X.(*ast.SelectorExpr); ok {
			name = selector.Sel.Name
		}
	case *ast.SelectorExpr:
		name = e.Sel.Name
	case *ast.IndexExpr:
		if selector, ok := e.X.(*ast.SelectorExpr); ok {
			name = selector.Sel.Name
		}
	case *ast.IndexListExpr:
		if selector, ok := e.X.(*ast.SelectorExpr); ok {
			name = selector.Sel.Name
		}
	}
	return strings.HasSuffix(name, "Request") || strings.Contains(name, "StreamingServer") ||
		strings.HasSuffix(name, "Server")
}
