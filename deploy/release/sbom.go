package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// describe returns the SBOM of a binary, without a serial number or a time, so that it is the same again.
func describe(version string, one binary, modules []linkedModule) ([]byte, error) {
	content, err := os.ReadFile(one.path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	of := func(path, version string) string {
		return fmt.Sprintf("pkg:golang/%s@%s", path, version)
	}
	const self = "github.com/ententehq/entente"
	root := of(self, "v"+version) + fmt.Sprintf("?goos=%s&goarch=%s", one.os, one.arch)
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &cdx.Component{
		BOMRef: root, Type: cdx.ComponentTypeApplication, Name: self, Version: "v" + version, PackageURL: root,
		Hashes:   &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
	}}
	var components []cdx.Component
	var needs []string
	for _, m := range modules {
		c := cdx.Component{
			BOMRef: of(m.path, m.version), Type: cdx.ComponentTypeLibrary, Name: m.path, Version: m.version,
			PackageURL: of(m.path, m.version), Scope: cdx.ScopeRequired,
			Licenses: &cdx.Licenses{{License: &cdx.License{ID: m.licence}}},
		}
		// h1: is the SHA-256 of the module in Go's own form.
		if h, ok := strings.CutPrefix(m.sum, "h1:"); ok {
			raw, err := base64.StdEncoding.DecodeString(h)
			if err != nil {
				return nil, fmt.Errorf("checksum of %s: %w", m.path, err)
			}
			c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(raw)}}
		}
		components, needs = append(components, c), append(needs, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: root, Dependencies: &needs}}
	var out bytes.Buffer
	err = cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	return out.Bytes(), err
}
