package logfile

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// ErrDamaged means that a file does not contain what was written to it. The member must not continue with it.
var ErrDamaged = errors.New("damaged")

// damaged returns an error that wraps [ErrDamaged] and names the file.
func damaged(path, format string, args ...any) error {
	return fmt.Errorf("%s is %w: %s", path, ErrDamaged, fmt.Sprintf(format, args...))
}

// guarded runs fn, which uses bbolt, and turns its panics and faults into errors; broken means that there was one.
// bbolt panics at pages that it cannot use, and maps the file into memory, so that a page that cannot be read is a
// fault of memory rather than an error.
func guarded(path string, fn func() error) (broken bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			line, _, _ := strings.Cut(fmt.Sprint(r), "\n")
			broken, err = true, damaged(path, "it cannot be used: %s", line)
		}
	}()
	return false, fn()
}

// guarded is the function of that name for an open file. After a panic bbolt may hold its locks, and is not called
// again.
func (f *File) guarded(fn func() error) error {
	if err := f.broken.Load(); err != nil {
		return *err
	}
	broken, err := guarded(f.path, fn)
	if broken {
		f.broken.CompareAndSwap(nil, &err)
	}
	return err
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
