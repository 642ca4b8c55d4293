// Command release writes what a registry of providers needs of a release into a folder:
//
//	go run ./terraform/release 0.1.0 dist
//
// One zip a platform, the manifest with the version of the plugin protocol, and the SHA256SUMS of both, ready to be
// signed with gpg --detach-sign. The same source, Go version and version make the same bytes.
package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	builds "github.com/ententehq/entente/internal/release"
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
	version, err := builds.ParseVersion(version)
	if err != nil {
		return err
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
	return builds.WriteSums(folder, base+"_SHA256SUMS", files)
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
	build := builds.Binary{
		Package: "github.com/ententehq/entente/cmd/" + name, Variable: "main.version", Version: version,
		OS: system, Arch: machine,
	}
	if err := build.Build(binary); err != nil {
		return err
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
