// Command release writes everything that is released of Entente into a folder:
//
//	go -C deploy/release run . [-key cosign.key] 0.1.0 ../../bin/release
//
// For linux and darwin on amd64 and arm64 there is an archive with the static binary, and for linux a deb, an rpm and
// an image without a shell (an OCI layout in an archive, for both architectures). Each binary has an SBOM in CycloneDX,
// and all archives the licences of what is linked, which are checked against a list. SHA256SUMS covers everything; with
// -key it is signed as 'cosign sign-blob' does, with the password in COSIGN_PASSWORD.
//
// The same source, Go version and version make the same bytes, the signature excepted. It is a module of its own, and
// neither depends on the other: internal/release/build is a command.
package main

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// platform is an operating system and an architecture in Go's names.
type platform struct{ os, arch string }

// platforms are those of a release.
var platforms = []platform{{"darwin", "amd64"}, {"darwin", "arm64"}, {"linux", "amd64"}, {"linux", "arm64"}}

func main() {
	key := flag.String("key", "", "cosign's private `FILE`, which signs SHA256SUMS")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: go -C deploy/release run . [-key FILE] VERSION FOLDER")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	b := build{source: filepath.Join("..", ".."), folder: flag.Arg(1), key: *key, platforms: platforms}
	if err := b.run(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// build is one release.
type build struct {
	source    string // the root of the repository
	folder    string // receives the files
	key       string // signs, if not empty
	platforms []platform

	version string
	time    time.Time // of everything in it
	files   []string  // what was written
}

// binary is a built command with what belongs to it.
type binary struct {
	platform
	path     string
	licences []byte
}

func (b *build) run(version string) (err error) {
	b.version = strings.TrimPrefix(version, "v")
	if b.time, err = sourceTime(b.source); err != nil {
		return err
	}
	if err := os.MkdirAll(b.folder, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "entente-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var linux []binary
	for _, p := range b.platforms {
		one, err := b.compile(p, filepath.Join(dir, p.os+"-"+p.arch))
		if err != nil {
			return err
		}
		if err := b.archive(one); err != nil {
			return err
		}
		if p.os == "linux" {
			linux = append(linux, one)
			if err := b.packages(one); err != nil {
				return err
			}
		}
	}
	if err := b.image(linux); err != nil {
		return err
	}
	if err := b.sums(); err != nil {
		return err
	}
	if b.key == "" {
		return nil
	}
	return sign(b.key, os.Getenv("COSIGN_PASSWORD"), filepath.Join(b.folder, sumsName))
}

// sumsName is the file with the checksums.
const sumsName = "SHA256SUMS"

// sums writes the checksums, as sha256sum --check reads them.
func (b *build) sums() error {
	var out strings.Builder
	for _, file := range slices.Sorted(slices.Values(b.files)) {
		content, err := os.ReadFile(filepath.Join(b.folder, file))
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(content), file)
	}
	return os.WriteFile(filepath.Join(b.folder, sumsName), []byte(out.String()), 0o644)
}

// compile builds the command for a platform, writes its SBOM, and collects the licences of what it links.
func (b *build) compile(p platform, dir string) (binary, error) {
	one := binary{platform: p, path: filepath.Join(dir, "entente")}
	path, err := filepath.Abs(one.path)
	if err != nil {
		return one, err
	}
	// The module of the product knows how it is built. That this module does not depend on it keeps the two apart.
	command := exec.Command("go", "run", "./internal/release/build", "./cmd/entente",
		"github.com/ententehq/entente/node.Version", b.version, p.os, p.arch, path)
	command.Dir = b.source
	if out, err := command.CombinedOutput(); err != nil {
		return one, fmt.Errorf("build for %s/%s: %w\n%s", p.os, p.arch, err, out)
	}
	modules, err := linked(b.source, one.path)
	if err != nil {
		return one, err
	}
	if one.licences, err = notices(modules); err != nil {
		return one, err
	}
	sbom, err := describe(b.version, one, modules)
	if err != nil {
		return one, err
	}
	return one, b.write(fmt.Sprintf("entente_%s_%s_%s.cdx.json", b.version, p.os, p.arch), sbom)
}

// write writes a file of the release.
func (b *build) write(name string, content []byte) error {
	b.files = append(b.files, name)
	return os.WriteFile(filepath.Join(b.folder, name), content, 0o644)
}

// sourceTime returns the time of the source: that of the last commit, or SOURCE_DATE_EPOCH for a source without one.
func sourceTime(source string) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.Command("git", "-C", source, "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("read the time of the last commit: %w: set SOURCE_DATE_EPOCH for a source "+
				"without a history", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is no number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
