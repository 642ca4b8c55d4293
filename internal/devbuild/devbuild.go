// Package devbuild builds programs to test with, each in a module of its own below e2e/, so that its dependencies stay
// out of the product's. A program is kept in the user's cache folder.
package devbuild

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Program is a program to test with.
type Program struct {
	// Module is the folder of its module below e2e/.
	Module string
	// Package is what to build there: "." or the path of a command.
	Package string
	// Copied is the path of a module that Module requires. If it is not empty, Package is built in a copy of it,
	// without the lines of Files, a pattern, that match Drop: what a test does not need can cost most of a build.
	Copied, Files string
	Drop          *regexp.Regexp
}

// Build returns the path of the program, and builds it if nobody has. It is kept by a digest of the module's source,
// its requirements and the Go version. The first build can take minutes; of several processes that need it, one builds
// and the others wait.
func (p Program) Build(ctx context.Context) (string, error) {
	source, file, err := p.paths(ctx)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(file), "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // which unlocks it
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(file); err == nil {
		return file, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := p.build(ctx, source, file+".new"); err != nil {
		return "", err
	}
	return file, os.Rename(file+".new", file)
}

// Built returns the path of the program if it has been built, and "" if not.
func (p Program) Built(ctx context.Context) (string, error) {
	_, file, err := p.paths(ctx)
	if err != nil {
		return "", err
	}
	_, err = os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	}
	return file, nil
}

// build runs with a low priority: it keeps all cores busy.
func (p Program) build(ctx context.Context, source, file string) error {
	if p.Copied != "" {
		folder, err := p.copySource(ctx, source, file+".src")
		defer func() { _ = os.RemoveAll(folder) }()
		if err != nil {
			return fmt.Errorf("copy %s: %w", p.Copied, err)
		}
		source = folder
	}
	var output strings.Builder
	run := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", file, p.Package)
	run.Dir, run.Stdout, run.Stderr = source, &output, &output
	run.Env = append(os.Environ(), "GOWORK=off")
	if err := run.Start(); err != nil {
		return err
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, run.Process.Pid, 10) // without it the build only disturbs more
	if err := run.Wait(); err != nil {
		return fmt.Errorf(
			"build %s, which needs the Go module proxy the first time: %w\n%s", source, err, output.String(),
		)
	}
	return nil
}

// copySource copies the module that is built to a folder, and drops what is not needed.
func (p Program) copySource(ctx context.Context, source, folder string) (string, error) {
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", p.Copied)
	download.Dir, download.Env = source, append(os.Environ(), "GOWORK=off")
	out, err := download.Output()
	if err != nil {
		return folder, fmt.Errorf("%w: %s", err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return folder, err
	}
	if err := os.RemoveAll(folder); err != nil { // of a build that was killed
		return folder, err
	}
	if err := os.CopyFS(folder, os.DirFS(module.Dir)); err != nil {
		return folder, err
	}
	files, err := filepath.Glob(filepath.Join(folder, p.Files))
	if err != nil {
		return folder, err
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return folder, err
		}
		var kept []byte
		for line := range bytes.Lines(raw) {
			if !p.Drop.Match(line) {
				kept = append(kept, line...)
			}
		}
		if err := os.WriteFile(file, kept, 0o600); err != nil {
			return folder, err
		}
	}
	return folder, nil
}

// paths returns the folder of the module, beside the go.mod of the module that is being tested, and where the program
// is kept.
func (p Program) paths(ctx context.Context) (source, file string, err error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", "", fmt.Errorf("find the module: %w", err)
	}
	source = filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "e2e", p.Module)
	key, err := p.digest(source)
	if err != nil {
		return "", "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", err
	}
	return source, filepath.Join(cache, "entente-"+p.Module, p.Module+"-"+key), nil
}

func (p Program) digest(source string) (string, error) {
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version())
	if p.Copied != "" {
		fmt.Fprintln(sum, p.Package, p.Copied, p.Files, p.Drop)
	}
	for _, path := range append(files, filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum")) {
		raw, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(sum, filepath.Base(path), len(raw))
		sum.Write(raw)
	}
	return hex.EncodeToString(sum.Sum(nil)[:12]), nil
}
