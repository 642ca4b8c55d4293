package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is the user and the group of the image. It has a number, so that Kubernetes can see that it is not root.
const user = 65532

// image writes an image for each architecture, and their index, as an OCI layout in an archive. An image has the
// binary, the roots of web certificates, for Vault and ACME, and the user; no shell and no other program.
func (b *build) image(binaries []binary) error {
	if len(binaries) == 0 {
		return nil
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, one := range binaries {
		image, err := b.imageOf(one)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: one.os, Architecture: one.arch},
		}})
	}
	dir, err := os.MkdirTemp("", "entente-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	written, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	name := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": b.version})
	if err := written.AppendIndex(index, name); err != nil {
		return err
	}
	var entries []entry
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		in, err := filepath.Rel(dir, path)
		entries = append(entries, entry{filepath.ToSlash(in), 0o644, content})
		return err
	})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := pack(&out, entries, b.time); err != nil {
		return err
	}
	return b.write(fmt.Sprintf("entente_%s_oci.tar", b.version), out.Bytes())
}

func (b *build) imageOf(one binary) (v1.Image, error) {
	binary, err := os.ReadFile(one.path)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	err = pack(&layer, []entry{
		{"etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\nentente:x:%d:\n", user)},
		{"etc/passwd", 0o644, fmt.Appendf(nil,
			"root:x:0:0:root:/:/sbin/nologin\nentente:x:%d:%[1]d:Entente:/:/sbin/nologin\n", user)},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, webRoots()},
		{"usr/bin/entente", 0o755, binary},
		{"usr/share/doc/entente/THIRD_PARTY_LICENSES", 0o644, one.licences},
	}, b.time)
	if err != nil {
		return nil, err
	}
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{Layer: content, MediaType: types.OCILayer, History: v1.History{
		Created: v1.Time{Time: b.time}, CreatedBy: "deploy/release",
	}})
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = one.os, one.arch, v1.Time{Time: b.time}
	file.Config = v1.Config{
		Entrypoint:   []string{"/usr/bin/entente"},
		Cmd:          []string{"server", "--config", "/etc/entente/entente.hcl"},
		User:         fmt.Sprintf("%d:%[1]d", user),
		Env:          []string{"PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
		ExposedPorts: map[string]struct{}{"7440/tcp": {}, "7443/tcp": {}, "7448/tcp": {}},
		WorkingDir:   "/",
		StopSignal:   "SIGTERM",
		Labels: map[string]string{
			"org.opencontainers.image.title":    "entente",
			"org.opencontainers.image.version":  b.version,
			"org.opencontainers.image.licenses": "Apache-2.0",
			"org.opencontainers.image.source":   "https://github.com/ententehq/entente",
		},
	}
	return mutate.ConfigFile(image, file)
}

// webRoots returns the roots of Mozilla, those without constraints that a file of certificates cannot state.
func webRoots() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return out.Bytes()
}
