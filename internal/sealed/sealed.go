// Package sealed keeps small files that are written in full or not at all, with the SHA-256 of their content behind it.
package sealed

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrDamaged means that a file does not have what was written to it.
var ErrDamaged = errors.New("its checksum does not match")

// Write replaces the content of a file, with mode 0600. A file that has the content already is left alone.
func Write(path string, content []byte) error {
	sum := sha256.Sum256(content)
	content = append(content[:len(content):len(content)], sum[:]...)
	if before, err := os.ReadFile(path); err == nil && string(before) == string(content) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // renamed, or of no use
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Read returns the content of a file of at most limit bytes. The error is os.ErrNotExist if there is no file, and
// [ErrDamaged] if it was damaged; callers add the path.
func Read(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("it has %d bytes, which is too many", info.Size())
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	end := len(content) - sha256.Size
	if end < 0 || sha256.Sum256(content[:end]) != [sha256.Size]byte(content[end:]) {
		return nil, ErrDamaged
	}
	return content[:end], nil
}
