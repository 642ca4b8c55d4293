package vaulttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Build returns the path of the vaultdev program, and builds it if no earlier test has. The program is kept in the
// user's cache folder by a digest of its source, its requirements and the Go version. The first build takes minutes;
// of several processes that need it, one builds and the others wait.
func Build(ctx context.Context) (string, error) {
	source, err := sourceFolder(ctx)
	if err != nil {
		return "", err
	}
	key, err := digest(source)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, "entente-vaultdev")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // which unlocks it
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	program := filepath.Join(folder, "vaultdev-"+key)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := build(ctx, source, program+".new"); err != nil {
		return "", err
	}
	return program, os.Rename(program+".new", program)
}

// build runs with a low priority: it keeps all cores busy.
func build(ctx context.Context, source, program string) error {
	var output strings.Builder
	run := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", program, ".")
	run.Dir, run.Stdout, run.Stderr = source, &output, &output
	run.Env = append(os.Environ(), "GOWORK=off")
	if err := run.Start(); err != nil {
		return err
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, run.Process.Pid, 10) // without it the build only disturbs more
	if err := run.Wait(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", source, err, output.String())
	}
	return nil
}

// sourceFolder is e2e/vaultdev beside the go.mod of the module that is being tested.
func sourceFolder(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "e2e", "vaultdev"), nil
}

func digest(source string) (string, error) {
	files, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("%s holds no Go files", source)
	}
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version())
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
