// Package secretdir checks folders that hold private keys or the admin socket: nobody but their owner may reach them,
// and the owner is the user that the process runs as.
package secretdir

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Make creates the folder and its parents (mode 0700) if it does not exist, and checks it. what names it in errors.
func Make(what, path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make the %s: %w", what, err)
	}
	return Check(what, path)
}

// Check returns an error with the command that mends it if others can reach the folder, or if it belongs to another
// user. what names the folder in errors.
func Check(what, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the %s: %w", what, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("look at the %s %s: the system does not return its owner", what, path)
	}
	return judge(what, path, info.Mode().Perm(), int(stat.Uid), os.Geteuid())
}

// judge decides on a folder by its mode, its owner, and the user of the process.
func judge(what, path string, mode fs.FileMode, owner, user int) error {
	switch {
	case owner != user:
		return fmt.Errorf("the %s %s belongs to uid %d, and this process runs as uid %d, "+
			"so that another user can replace what is in it; run chown -R %d %s", what, path, owner, user, user, path)
	case mode&0o077 != 0:
		return fmt.Errorf("the %s %s has mode %04o, so that others can reach the private keys in it; run chmod 0700 %s",
			what, path, mode, path)
	}
	return nil
}
