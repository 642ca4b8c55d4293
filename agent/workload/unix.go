package workload

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// Unix is the attestor of what a Unix kernel knows of a process. Its selectors are uid, gid, user, group,
// supplementary_gid, supplementary_group, path and sha256, of the program of the process. The path is one of the
// agent's own files: a program in a container or behind another mount, and one that was deleted, have none.
type Unix struct {
	// Uses reports whether an entry has a selector with a prefix. The digest of a program, which takes the longest, is
	// computed only if one has. If nil, it always is.
	Uses func(prefix string) bool
	// MaxBinary bounds the programs whose digest is computed. If 0, it is 1 GiB.
	MaxBinary int64
}

// Type implements [Attestor].
func (Unix) Type() string { return "unix" }

// Attest implements [Attestor].
func (u Unix) Attest(ctx context.Context, p Process) ([]string, error) {
	uid, gid := strconv.FormatUint(uint64(p.UID), 10), strconv.FormatUint(uint64(p.GID), 10)
	selectors := []string{"uid:" + uid, "gid:" + gid}
	// A container's users have no names on the node.
	if named, err := user.LookupId(uid); err == nil {
		selectors = append(selectors, "user:"+named.Username)
	}
	if named, err := user.LookupGroupId(gid); err == nil {
		selectors = append(selectors, "group:"+named.Name)
	}
	groups, err := supplementary(p.PID)
	if err != nil {
		return nil, err
	}
	for _, gid := range groups {
		selectors = append(selectors, "supplementary_gid:"+gid)
		if named, err := user.LookupGroupId(gid); err == nil {
			selectors = append(selectors, "supplementary_group:"+named.Name)
		}
	}
	exe := fmt.Sprintf("/proc/%d/exe", p.PID)
	path, err := os.Readlink(exe)
	switch {
	case errors.Is(err, os.ErrPermission):
		return selectors, nil // an agent without privileges sees the programs of its own user alone
	case err != nil:
		return nil, fmt.Errorf("read the path of the program: %w", err)
	}
	if runs, err := sameFile(exe, path); err != nil {
		return nil, err
	} else if runs {
		selectors = append(selectors, "path:"+path)
	}
	if u.Uses != nil && !u.Uses("unix:sha256:") {
		return selectors, nil
	}
	digest, err := u.digest(ctx, exe)
	if err != nil {
		return nil, err
	}
	return append(selectors, "sha256:"+digest), nil
}

// sameFile reports whether the program that a link leads to is the file that the agent has at a path. The kernel names
// the path in the mount namespace of the process, in which its user can mount another file there.
func sameFile(exe, path string) (bool, error) {
	running, err := os.Stat(exe)
	if err != nil {
		return false, fmt.Errorf("read the program: %w", err)
	}
	own, err := os.Lstat(path)
	return err == nil && os.SameFile(running, own), nil
}

// supplementary returns the supplementary groups of a process.
func supplementary(pid int32) ([]string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, fmt.Errorf("read the groups of the process: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		if groups, ok := strings.CutPrefix(lines.Text(), "Groups:"); ok {
			return strings.Fields(groups), nil
		}
	}
	return nil, errors.Join(errors.New("/proc/PID/status names no groups"), lines.Err())
}

// digest returns the SHA-256 of the program that a link leads to. It is the program that runs, also if another one has
// its path by now.
func (u Unix) digest(ctx context.Context, exe string) (string, error) {
	f, err := os.Open(exe)
	if err != nil {
		return "", fmt.Errorf("read the program: %w", err)
	}
	defer f.Close()
	limit := u.MaxBinary
	if limit == 0 {
		limit = 1 << 30
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(cancelable{ctx, f}, limit+1))
	if err != nil {
		return "", fmt.Errorf("read the program: %w", err)
	}
	if n > limit {
		return "", fmt.Errorf("the program is larger than %d bytes, the limit for a digest", limit)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// cancelable ends a long read with its context.
type cancelable struct {
	ctx context.Context //nolint:containedctx // of one read
	io.Reader
}

func (c cancelable) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(b)
}
