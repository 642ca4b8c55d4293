package sync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// killAfter is how long a command has to end after SIGTERM.
const killAfter = 5 * time.Second

// command is the command that tells readers of a change.
type command struct {
	options
	stdout, stderr io.Writer
}

// run runs the command to its end. It ends with ctx, or after the timeout, with all processes that it started and that
// are still in its group.
func (c command) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.exec)
	cmd.Stdout, cmd.Stderr = c.stdout, c.stderr
	cmd.Env = append(os.Environ(), "ENTENTE_SYNC_DIR="+c.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killAfter
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of the group, usually nothing
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("the command of --exec did not end within %s", c.timeout)
	}
	return fmt.Errorf("the command of --exec failed: %w", err)
}
