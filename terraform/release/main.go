// Command release writes what a registry of providers needs of a release into a folder:
//
//	go run ./terraform/release 0.1.0 dist
//
// One zip a platform, the manifest with the version of the plugin protocol, and the SHA256SUMS of both, ready to be
// signed with gpg --detach-sign. The same source, Go version and version make the same bytes.
package main

import (
	"archive/zip"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const name = "terraform-provider-entente"

// platforms are those for which a release has a zip.
var platforms = []string{
	"darwin_amd64", "darwin_arm64", "freebsd_amd64", "linux_amd64", "linux_arm64", "windows_amd64", "windows_arm64",
}

// manifest names the version of the plugin protocol, that of terraform-plugin-framework's providers.
const manifest = `{
  "version": 1,
  "metadata": {
    "protocol_versions": ["6.0"]
  }
}
`

// versionForm is that of a registry: semantic, without a v.
var versionForm = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

// firstOfZip is the first moment that a zip can have: all files have it.
var firstOfZip = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run ./terraform/release VERSION FOLDER")
		os.Exit(2)
	}
	if err := release(os.Args[1], os.Args[2], platforms); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// release writes a release for some platforms.
func release(version, folder string, platforms []string) error {
	version = strings.TrimPrefix(version, "v")
	if !versionForm.MatchString(version) {
		return fmt.Errorf("%q is not a version: write MAJOR.MINOR.PATCH, such as 0.1.0", version)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	base := name + "_" + version
	files := []string{base + "_manifest.json"}
	if err := os.WriteFile(filepath.Join(folder, files[0]), []byte(manifest), 0o644); err != nil {
		return err
	}
	for _, platform := range platforms {
		file := base + "_" + platform + ".zip"
		if err := archive(version, platform, filepath.Join(folder, file)); err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		files = append(files, file)
	}
	slices.Sort(files)
	var sums strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), file)
	}
	return os.WriteFile(filepath.Join(folder, base+"_SHA256SUMS"), []byte(sums.String()), 0o644)
}

// archive builds the provider for a platform and packs it.
func archive(version, platform, file string) (err error) {
	dir, err := os.MkdirTemp("", name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	system, machine, _ := strings.Cut(platform, "_")
	binary := filepath.Join(dir, name+"_v"+version)
	if system == "windows" {
		binary += ".exe"
	}
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version="+version,
		"-o", binary, "github.com/ententehq/entente/cmd/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+machine, "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	packed := zip.NewWriter(out)
	header := &zip.FileHeader{Name: filepath.Base(binary), Method: zip.Deflate, Modified: firstOfZip}
	header.SetMode(0o755)
	to, err := packed.CreateHeader(header)
	if err != nil {
		return err
	}
	if _, err := to.Write(content); err != nil {
		return err
	}
	return packed.Close()
}
