package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	secretMode = 0o600 // only the owner reads it
	publicMode = 0o644
	// maxFileBytes bounds what is read from files that are sent: a bundle, roots.
	maxFileBytes = 4 << 20
)

// writeFileBy makes a file appear whole, or not at all: write fills a temporary one beside it, which then takes its place.
func writeFileBy(path string, mode os.FileMode, write func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return f.Chmod(mode) }, f.Sync, func() error { return os.Rename(f.Name(), path) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return f.Close()
}

// input is a file that the command line names.
type input struct {
	named  string // the flag or the argument
	remedy string // which file to name
}

var (
	bundleInput     = input{"FILE", "name a SPIFFE bundle document, as 'entente bundle show --format spiffe' prints it"}
	statementsInput = input{"--statements", "name a document of statements, as 'entente bundle show --format statements' prints it or a bundle endpoint serves it at /bundles/DOMAIN/statements"}
	bootstrapInput  = input{"--bootstrap", "name the peer's SPIFFE bundle document, as 'entente bundle show --format spiffe' prints it there"}
	webRootsInput   = input{"--web-roots", "name a file of PEM certificates, or leave it out for the system's roots"}
	rulesInput      = input{"FILE", "name a file of rules, as 'entente rule put --help' shows one"}
	snapshotInput   = input{"FILE", "name a snapshot, as 'entente cluster snapshot save' writes it"}
)

// open opens the file. Its error says what on the command line named it, and what to name instead.
func (i input) open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s %s cannot be read (%w): %s", i.named, path, bare(err), i.remedy)
	}
	return f, nil
}

// bare is what the operating system said, without the call and the path.
func bare(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// readFile reads a file of bounded size, or standard input for "-".
func (a *app) readFile(from input, path string) ([]byte, error) {
	in := a.stdin
	if path != "-" {
		f, err := from.open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s %s cannot be read (%w): %s", from.named, path, bare(err), from.remedy)
	case len(b) > maxFileBytes:
		return nil, fmt.Errorf("%s %s has more than %d MiB: %s", from.named, path, maxFileBytes>>20, from.remedy)
	}
	return b, nil
}
