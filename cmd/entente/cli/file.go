package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// SecretMode is the mode of files that only their owner may read.
	SecretMode = 0o600
	// PublicMode is the mode of other files.
	PublicMode = 0o644
	// maxFileBytes bounds files that are sent to a member: a bundle, roots.
	maxFileBytes = 4 << 20
)

// WriteFile makes a file appear as a whole or not at all: write fills a temporary file, which then replaces path.
func WriteFile(path string, mode os.FileMode, write func(*os.File) error) (err error) {
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

// Input is a file that the command line names.
type Input struct {
	Name   string // of the flag or the argument
	Remedy string // which file to name instead of one that cannot be read
}

// Open opens the file. Its error names the flag or the argument, and what to name instead.
func (i Input) Open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, i.unreadable(path, err)
	}
	return f, nil
}

func (i Input) unreadable(path string, err error) error {
	return fmt.Errorf("%s %s cannot be read (%w): %s", i.Name, path, Cause(err), i.Remedy)
}

// Cause returns the error of the operating system without the operation and the path.
func Cause(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// ReadFile reads a file of bounded size, or standard input for "-".
func (env *Env) ReadFile(from Input, path string) ([]byte, error) {
	in := env.Stdin
	if path != "-" {
		f, err := from.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, from.unreadable(path, err)
	case len(b) > maxFileBytes:
		return nil, fmt.Errorf("%s %s has more than %d MiB: %s", from.Name, path, maxFileBytes>>20, from.Remedy)
	}
	return b, nil
}
