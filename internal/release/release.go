// Package release builds what is released. The same source, Go version and version make the same bytes, wherever the
// source lies.
package release

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// form is that of a version: semantic, without a v.
var form = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

// ParseVersion returns a version without a leading v.
func ParseVersion(text string) (string, error) {
	version := strings.TrimPrefix(text, "v")
	if !form.MatchString(version) {
		return "", fmt.Errorf("%q is not a version: write MAJOR.MINOR.PATCH, such as 0.1.0", version)
	}
	return version, nil
}

// Binary is a command to be built.
type Binary struct {
	Package string // such as ./cmd/entente, below the folder Source
	Source  string // if empty, the present folder
	// Variable is the string variable that the version is written to.
	Variable, Version string
	OS, Arch          string
}

// Build builds a static binary without paths of this machine in it.
func (b Binary) Build(file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", fmt.Sprintf("-s -w -buildid= -X %s=%s", b.Variable, b.Version), "-o", file, b.Package)
	build.Dir = b.Source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+b.OS, "GOARCH="+b.Arch, "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s/%s: %w\n%s", b.Package, b.OS, b.Arch, err, out)
	}
	return nil
}

// WriteSums writes the checksums of files in a folder, as sha256sum --check reads them.
func WriteSums(folder, name string, files []string) error {
	files = slices.Sorted(slices.Values(files))
	var sums strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), file)
	}
	return os.WriteFile(filepath.Join(folder, name), []byte(sums.String()), 0o644)
}
