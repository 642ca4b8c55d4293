package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"debug/elf"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/stretchr/testify/require"
)

// TestRelease makes a release for one platform twice, from the same source at two places, and looks at what is in it.
func TestRelease(t *testing.T) {
	p := platform{"linux", runtime.GOARCH}
	key, public := cosignKey(t, "hunter2")
	t.Setenv("COSIGN_PASSWORD", "hunter2")
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	var folders [2]string
	for i, source := range []string{filepath.Join("..", ".."), copyOfSource(t)} {
		folders[i] = t.TempDir()
		b := build{source: source, folder: folders[i], key: key, platforms: []platform{p}}
		require.NoError(t, b.run("v1.2.3"))
	}
	base := "entente_1.2.3_linux_" + p.arch
	names := []string{
		"SHA256SUMS", "SHA256SUMS.sig", base + ".cdx.json", base + ".deb", base + ".rpm", base + ".tar.gz",
		"entente_1.2.3_oci.tar",
	}
	require.ElementsMatch(t, names, list(t, folders[0]))
	for _, name := range names {
		if name != "SHA256SUMS.sig" { // signatures by ECDSA contain randomness
			require.True(t, bytes.Equal(read(t, folders[0], name), read(t, folders[1], name)), "%s differs", name)
		}
	}
	folder := folders[0]
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = folder
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, len(names)-2, strings.Count(string(out), ": OK"))

	t.Run("signature", func(t *testing.T) {
		signature, err := base64.StdEncoding.DecodeString(string(read(t, folder, "SHA256SUMS.sig")))
		require.NoError(t, err)
		digest := sha256.Sum256(read(t, folder, "SHA256SUMS"))
		require.True(t, ecdsa.VerifyASN1(public, digest[:], signature))
	})

	var command []byte
	t.Run("archive", func(t *testing.T) {
		unzipped, err := gzip.NewReader(bytes.NewReader(read(t, folder, base+".tar.gz")))
		require.NoError(t, err)
		files := untar(t, unzipped)
		require.Len(t, files, 4)
		command = files[base+"/entente"]
		require.Contains(t, string(files[base+"/THIRD_PARTY_LICENSES"]), "github.com/hashicorp/raft v1.7.3: MPL-2.0")
		file := filepath.Join(t.TempDir(), "entente")
		require.NoError(t, os.WriteFile(file, command, 0o700))
		version, err := exec.Command(file, "--version").CombinedOutput()
		require.NoError(t, err, "%s", version)
		require.Contains(t, string(version), "1.2.3")
		image, err := elf.NewFile(bytes.NewReader(command))
		require.NoError(t, err)
		for _, part := range image.Progs {
			require.NotEqual(t, elf.PT_INTERP, part.Type, "the binary is not static")
		}
		here, err := filepath.Abs("../..")
		require.NoError(t, err)
		require.NotContains(t, string(command), here, "a path of this machine is in the binary")
	})

	t.Run("SBOM", func(t *testing.T) {
		var bom cdx.BOM
		decoder := cdx.NewBOMDecoder(bytes.NewReader(read(t, folder, base+".cdx.json")), cdx.BOMFileFormatJSON)
		require.NoError(t, decoder.Decode(&bom))
		require.Equal(t, "v1.2.3", bom.Metadata.Component.Version)
		found := false
		for _, c := range *bom.Components {
			require.Len(t, *c.Licenses, 1, c.Name)
			found = found || c.PackageURL == "pkg:golang/github.com/hashicorp/raft@v1.7.3"
		}
		require.True(t, found)
	})

	t.Run("image", func(t *testing.T) {
		dir := t.TempDir()
		for name, content := range untar(t, bytes.NewReader(read(t, folder, "entente_1.2.3_oci.tar"))) {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
		outer, err := layout.ImageIndexFromPath(dir)
		require.NoError(t, err)
		tagged, err := outer.IndexManifest()
		require.NoError(t, err)
		require.Equal(t, "1.2.3", tagged.Manifests[0].Annotations["org.opencontainers.image.ref.name"])
		index, err := outer.ImageIndex(tagged.Manifests[0].Digest)
		require.NoError(t, err)
		require.NoError(t, validate.Index(index))
		manifest, err := index.IndexManifest()
		require.NoError(t, err)
		require.Len(t, manifest.Manifests, 1)
		require.Equal(t, p.arch, manifest.Manifests[0].Platform.Architecture)
		image, err := index.Image(manifest.Manifests[0].Digest)
		require.NoError(t, err)
		config, err := image.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, "65532:65532", config.Config.User)
		require.Equal(t, []string{"/usr/bin/entente"}, config.Config.Entrypoint)
		content := untar(t, mutate.Extract(image))
		require.Equal(t, command, content["usr/bin/entente"], "the same binary as in the archive")
		require.Len(t, content, 5, "no shell, and no other program")
		pool := x509.NewCertPool()
		require.True(t, pool.AppendCertsFromPEM(content["etc/ssl/certs/ca-certificates.crt"]))
	})

	t.Run("deb", func(t *testing.T) {
		if _, err := exec.LookPath("dpkg-deb"); err != nil {
			leftOut(t, "dpkg-deb is missing")
		}
		root := t.TempDir()
		out, err := exec.Command("dpkg-deb", "--extract", filepath.Join(folder, base+".deb"), root).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, command, read(t, root, "usr/bin/entente"))
		unit := read(t, root, "usr/lib/systemd/system/entente.service")
		require.Contains(t, string(unit), "ExecStart=/usr/bin/entente server")
		validated, err := exec.Command(filepath.Join(root, "usr/bin/entente"), "validate",
			filepath.Join(root, "etc/entente/entente.hcl")).CombinedOutput()
		require.NoError(t, err, "%s", validated)
		out, err = exec.Command("dpkg-deb", "--info", filepath.Join(folder, base+".deb")).CombinedOutput()
		require.NoError(t, err, "%s", out)
		for _, want := range []string{"Version: 1.2.3", "postinst", "prerm", "conffiles"} {
			require.Contains(t, string(out), want)
		}
	})

	t.Run("rpm", func(t *testing.T) {
		content := read(t, folder, base+".rpm")
		require.Equal(t, []byte{0xed, 0xab, 0xee, 0xdb}, content[:4])
		if _, err := exec.LookPath("rpm"); err != nil {
			leftOut(t, "rpm is missing")
		}
		out, err := exec.Command("rpm", "--query", "--list", "--package", filepath.Join(folder, base+".rpm")).Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "/usr/lib/systemd/system/entente.service\n")
	})
}

// leftOut leaves a test out, unless nothing may be.
func leftOut(t *testing.T, reason string) {
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip("left out: " + reason)
}

// TestInstallable: 'go install …@version' refuses a module with replaced modules.
func TestInstallable(t *testing.T) {
	out, err := exec.Command("go", "mod", "edit", "-json", "../../go.mod").Output()
	require.NoError(t, err)
	var mod struct{ Replace, Exclude []any }
	require.NoError(t, json.Unmarshal(out, &mod))
	require.Empty(t, mod.Replace)
	require.Empty(t, mod.Exclude)
}

func TestLicences(t *testing.T) {
	licence := func(file, text string) (string, error) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
		return licenceOf(linkedModule{path: "example.org/m", version: "v1.0.0", dir: dir})
	}
	mine, err := os.ReadFile("../../LICENSE")
	require.NoError(t, err)
	name, err := licence("LICENSE", string(mine))
	require.NoError(t, err)
	require.Equal(t, "Apache-2.0", name)
	name, err = licence("COPYING", "MIT\n\nPermission is hereby granted, free of charge, to any person\nobtaining a "+
		"copy of this software")
	require.NoError(t, err)
	require.Equal(t, "MIT", name)
	_, err = licence("LICENSE.txt", "GNU GENERAL PUBLIC LICENSE\n  Version 3")
	require.ErrorContains(t, err, "example.org/m v1.0.0 has a licence that a release may not contain: \"GNU GENERAL "+
		"PUBLIC LICENSE Version\"")
	_, err = licence("LICENSE", "Business Source License 1.1")
	require.ErrorContains(t, err, "a release may not contain")
	_, err = licence("README", "Apache License Version 2.0")
	require.ErrorContains(t, err, "example.org/m v1.0.0 has no licence of the list in deploy/release/licences.go")
}

func TestRefusals(t *testing.T) {
	b := build{source: filepath.Join("..", ".."), folder: t.TempDir(), platforms: platforms}
	require.ErrorContains(t, b.run("next"), `"next" is not a version: write MAJOR.MINOR.PATCH`)
	require.Empty(t, list(t, b.folder))
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte("no key"), 0o600))
	require.ErrorContains(t, sign(file, "", file), "it is no private key of cosign: 'cosign generate-key-pair' "+
		"makes one")
	key, _ := cosignKey(t, "right")
	require.ErrorContains(t, sign(key, "wrong", file), "COSIGN_PASSWORD does not open it")
}

// cosignKey writes a key as 'cosign generate-key-pair' does.
func cosignKey(t *testing.T, password string) (file string, public *ecdsa.PublicKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	sealed, err := encrypted.Encrypt(der, []byte(password))
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "cosign.key")
	block := &pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: sealed}
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	return file, &key.PublicKey
}

// copyOfSource copies the tracked files to another place.
func copyOfSource(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, os.Mkdir(dir, 0o700))
	out, err := exec.Command("git", "-C", "../..", "ls-files", "-z", "*.go", "go.mod", "go.sum", "LICENSE", "examples",
		"deploy", "node", "cmd", "api").Output()
	require.NoError(t, err)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join("..", "..", name))
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return dir
}

func list(t *testing.T, folder string) (names []string) {
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, folder, name string) []byte {
	content, err := os.ReadFile(filepath.Join(folder, name))
	require.NoError(t, err)
	return content
}

// untar returns the files of an archive, all of which belong to root.
func untar(t *testing.T, from io.Reader) map[string][]byte {
	files := map[string][]byte{}
	for archive := tar.NewReader(from); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		require.Zero(t, header.Uid)
		require.EqualValues(t, 1700000000, header.ModTime.Unix())
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		files[header.Name] = content
	}
}
