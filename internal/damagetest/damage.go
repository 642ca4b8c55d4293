// Package damagetest damages files in tests, as a disk does that returns something else than what was written.
package damagetest

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// FlipsEnv names the environment variable with the number of damages that a test of damaged files makes. Without it
// the test makes few.
const FlipsEnv = "ENTENTE_FLIPS"

// Flips returns how many damages a test makes: few, unless the environment sets another number.
func Flips(t testing.TB, few int) int {
	text := os.Getenv(FlipsEnv)
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, and must be a number of damages", FlipsEnv, text)
	}
	return n
}

// CopyFolder copies the regular files of a folder, and the folders in it.
func CopyFolder(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// Damage flips one bit of one file below a folder, or truncates one, and describes what it did. Files that are empty or
// that skip returns true for are left alone; skip may be nil.
func Damage(t testing.TB, random *rand.Rand, dir string, skip func(path string) bool) string {
	t.Helper()
	f := choose(t, random, dir, skip)
	if random.IntN(4) == 0 {
		return f.cut(t, random)
	}
	return f.flip(t, random)
}

// Cut is a [Damage] that truncates a file.
func Cut(t testing.TB, random *rand.Rand, dir string) string {
	t.Helper()
	return choose(t, random, dir, nil).cut(t, random)
}

// Flip is a [Damage] that flips a bit.
func Flip(t testing.TB, random *rand.Rand, dir string) string {
	t.Helper()
	return choose(t, random, dir, nil).flip(t, random)
}

type file struct {
	path, name string
	size       int64
}

func (f file) cut(t testing.TB, random *rand.Rand) string {
	t.Helper()
	size := random.Int64N(f.size)
	if err := os.Truncate(f.path, size); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s of %d bytes truncated to %d", f.name, f.size, size)
}

func (f file) flip(t testing.TB, random *rand.Rand) string {
	t.Helper()
	at, bit := random.Int64N(f.size), random.IntN(8)
	if random.IntN(2) == 0 {
		at = random.Int64N(min(f.size, 8<<10)) // where its heads are
	}
	flip(t, f.path, at, bit)
	return fmt.Sprintf("bit %d of byte %d of %s flipped", bit, at, f.name)
}

func choose(t testing.TB, random *rand.Rand, dir string, skip func(path string) bool) file {
	t.Helper()
	var files []file
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || skip != nil && skip(path) {
			return err
		}
		info, err := entry.Info()
		if err != nil || info.Size() == 0 {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files = append(files, file{path, name, info.Size()})
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("no file to damage in %s: %v", dir, err)
	}
	return files[random.IntN(len(files))]
}

func flip(t testing.TB, path string, at int64, bit int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}
