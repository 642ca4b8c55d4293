package main

import (
	"errors"
	"fmt"
	"io"
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

// readFile reads a file of bounded size, or standard input for "-".
func (a *app) readFile(path string) ([]byte, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", path, err)
	case len(b) > maxFileBytes:
		return nil, fmt.Errorf("read %s: it has more than %d MiB", path, maxFileBytes>>20)
	}
	return b, nil
}
