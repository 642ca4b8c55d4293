package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	"github.com/goreleaser/nfpm/v2/rpm"
)

// entry is a file of an archive.
type entry struct {
	name    string
	mode    int64
	content []byte
}

// archive writes the binary with its licences and a configuration to begin with.
func (b *build) archive(one binary) error {
	folder := fmt.Sprintf("entente_%s_%s_%s", b.version, one.os, one.arch)
	var entries []entry
	for _, f := range []struct {
		name, from string
		mode       int64
	}{
		{"LICENSE", filepath.Join(b.source, "LICENSE"), 0o644},
		{"entente", one.path, 0o755},
		{"entente.hcl", filepath.Join(b.source, "examples", "entente.hcl"), 0o644},
	} {
		content, err := os.ReadFile(f.from)
		if err != nil {
			return err
		}
		entries = append(entries, entry{folder + "/" + f.name, f.mode, content})
	}
	entries = append(entries, entry{folder + "/THIRD_PARTY_LICENSES", 0o644, one.licences})
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	if err := errors.Join(pack(compressed, entries, b.time), compressed.Close()); err != nil {
		return err
	}
	return b.write(folder+".tar.gz", out.Bytes())
}

// pack writes files of root into an archive.
func pack(to interface{ Write([]byte) (int, error) }, entries []entry, at time.Time) error {
	archive := tar.NewWriter(to)
	for _, e := range entries {
		header := &tar.Header{
			Name: e.name, Mode: e.mode, Size: int64(len(e.content)), ModTime: at, Format: tar.FormatUSTAR,
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(e.content); err != nil {
			return err
		}
	}
	return archive.Close()
}

// packages writes the deb and the rpm: the binary, the units of systemd with their user, and the configuration.
func (b *build) packages(one binary) error {
	licences := filepath.Join(filepath.Dir(one.path), "THIRD_PARTY_LICENSES")
	if err := os.WriteFile(licences, one.licences, 0o644); err != nil {
		return err
	}
	in := func(path ...string) string { return filepath.Join(append([]string{b.source}, path...)...) }
	own := func(name string) string { return in("deploy", "release", "files", name) }
	contents := files.Contents{
		{Source: one.path, Destination: "/usr/bin/entente", FileInfo: &files.ContentFileInfo{Mode: 0o755}},
		{Source: own("sysusers.conf"), Destination: "/usr/lib/sysusers.d/entente.conf"},
		{Source: in("LICENSE"), Destination: "/usr/share/doc/entente/LICENSE"},
		{Source: licences, Destination: "/usr/share/doc/entente/THIRD_PARTY_LICENSES"},
		{Source: in("examples", "entente.hcl"), Destination: "/usr/share/doc/entente/entente.hcl"},
	}
	units, err := filepath.Glob(in("deploy", "systemd", "*.service"))
	if err != nil {
		return err
	}
	for _, unit := range units {
		contents = append(contents, &files.Content{
			Source: unit, Destination: "/usr/lib/systemd/system/" + filepath.Base(unit),
		})
	}
	samples, err := filepath.Glob(in("deploy", "systemd", "*.hcl"))
	if err != nil {
		return err
	}
	for _, sample := range samples {
		contents = append(contents, &files.Content{
			Source: sample, Destination: "/etc/entente/" + filepath.Base(sample), Type: files.TypeConfigNoReplace,
		})
	}
	for _, c := range contents {
		if c.FileInfo == nil {
			c.FileInfo = &files.ContentFileInfo{Mode: 0o644}
		}
		c.FileInfo.Owner, c.FileInfo.Group, c.FileInfo.MTime = "root", "root", b.time
	}
	for format, packager := range map[string]nfpm.Packager{"deb": deb.Default, "rpm": rpm.DefaultRPM} {
		info := nfpm.WithDefaults(&nfpm.Info{
			Name: "entente", Arch: one.arch, Platform: "linux", Version: b.version, MTime: b.time,
			Maintainer: "The Entente authors <maintainers@entente.example.org>", License: "Apache-2.0",
			Homepage: "https://github.com/ententehq/entente", Section: "net", Priority: "optional",
			Description: "Lets clusters in many regions trust each other",
			Overridables: nfpm.Overridables{
				Contents: contents,
				Scripts:  nfpm.Scripts{PostInstall: own("postinstall.sh"), PreRemove: own("preremove.sh")},
				RPM:      nfpm.RPM{BuildHost: "localhost", Compression: "gzip:9"},
				Deb:      nfpm.Deb{Compression: "gzip"},
			},
		})
		if err := nfpm.PrepareForPackager(info, format); err != nil {
			return fmt.Errorf("prepare the %s: %w", format, err)
		}
		var out bytes.Buffer
		if err := packager.Package(info, &out); err != nil {
			return fmt.Errorf("write the %s: %w", format, err)
		}
		if err := b.write(fmt.Sprintf("entente_%s_linux_%s.%s", b.version, one.arch, format), out.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
