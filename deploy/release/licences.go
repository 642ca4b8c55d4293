package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// linkedModule is a module that is linked into a binary.
type linkedModule struct {
	path, version, sum string
	dir                string // of its source
	licence            string // its SPDX identifier
}

// linked returns the modules that are linked into a binary, with their licences.
func linked(source, binary string) ([]linkedModule, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read what is linked: %w", err)
	}
	list := exec.Command("go", "list", "-m", "-json", "all")
	list.Dir = source
	list.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list the modules: %w", err)
	}
	dirs := map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct{ Path, Version, Dir string }
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("list the modules: %w", err)
		}
		dirs[m.Path+"@"+m.Version] = m.Dir
	}
	var modules []linkedModule
	for _, d := range info.Deps {
		if d.Replace != nil {
			return nil, fmt.Errorf("%s is replaced: 'go install' would refuse the command", d.Path)
		}
		m := linkedModule{path: d.Path, version: d.Version, sum: d.Sum, dir: dirs[d.Path+"@"+d.Version]}
		if m.licence, err = licenceOf(m); err != nil {
			return nil, err
		}
		modules = append(modules, m)
	}
	return modules, nil
}

// licenceFiles are the names of files with licences.
var licenceFiles = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)(\.(txt|md)|-[a-z0-9.-]+)?$`)

// texts returns the licence files of a module.
func (m linkedModule) texts() ([]string, error) {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return nil, fmt.Errorf("read the source of %s: %w", m.path, err)
	}
	var texts []string
	for _, e := range entries {
		if e.Type().IsRegular() && licenceFiles.MatchString(e.Name()) {
			text, err := os.ReadFile(filepath.Join(m.dir, e.Name()))
			if err != nil {
				return nil, err
			}
			texts = append(texts, string(text))
		}
	}
	return texts, nil
}

// permitted are the licences that a release may contain, each by a sentence that only its text has. The first that
// matches counts.
var permitted = []struct{ name, sentence string }{
	{"MPL-2.0", "Mozilla Public License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License, version 2.0"},
	{"Apache-2.0", "Apache License Version 2.0"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee"},
	{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose with or without fee"},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"},
	{"BSD-3-Clause", "may be used to endorse or promote products derived from"},
	{"BSD-2-Clause", "Redistributions in binary form must reproduce the above copyright notice"},
	{"CC0-1.0", "CC0 1.0 Universal"},
}

// refusedWords are of licences that would bind whoever installs a release.
var refusedWords = regexp.MustCompile(`(?i)affero|business source license|server side public|commons clause|` +
	`gnu (lesser )?general public license\s+version`)

// licenceOf returns the licence of a module, or an error if it is not permitted.
func licenceOf(m linkedModule) (string, error) {
	texts, err := m.texts()
	if err != nil {
		return "", err
	}
	for _, text := range texts {
		plain := strings.Join(strings.Fields(text), " ")
		// The MPL names the GPL as a secondary licence.
		if word := refusedWords.FindString(plain); word != "" && !strings.Contains(plain, "Mozilla Public License") {
			return "", fmt.Errorf("%s %s has a licence that a release may not contain: %q", m.path, m.version, word)
		}
		for _, p := range permitted {
			if strings.Contains(strings.ToLower(plain), strings.ToLower(p.sentence)) {
				return p.name, nil
			}
		}
	}
	return "", fmt.Errorf("%s %s has no licence of the list in deploy/release/licences.go: read what it has, and "+
		"add it or drop the module", m.path, m.version)
}

// notices returns the licences of all modules as one text.
func notices(modules []linkedModule) ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintln(&out, "Entente contains the following modules under these licences.")
	for _, m := range slices.SortedFunc(slices.Values(modules), func(a, b linkedModule) int {
		return strings.Compare(a.path, b.path)
	}) {
		texts, err := m.texts()
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "\n%s\n%s %s: %s\n\n%s\n", strings.Repeat("=", 79), m.path, m.version, m.licence,
			strings.Join(texts, "\n"))
	}
	return out.Bytes(), nil
}
