package demo

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a process of the demo: a member or an agent. Its folder has its log.
type child struct {
	dir string

	mu      sync.Mutex
	process *exec.Cmd
	stdin   io.Closer
	exited  chan struct{}
}

func (c *child) logFile() string { return filepath.Join(c.dir, "member.log") }

// start starts the process under a name. It runs until stop or kill, or until the demo ends.
func (c *child) start(name, executable string, arguments ...string) error {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(executable, arguments...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	cmd.Env = append(os.Environ(), tetherVariable+"=1")
	// A process group of its own: the interrupt key is for the demo, which then ends its processes in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process, c.stdin, c.exited = cmd, stdin, exited
	return nil
}

// gone returns a channel that is closed once the process has ended, or nil if it never ran.
func (c *child) gone() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exited
}

// kill ends the process as a crash does, and waits for it.
func (c *child) kill() {
	c.mu.Lock()
	process, exited := c.process, c.exited
	c.mu.Unlock()
	if process != nil {
		_ = process.Process.Kill()
		<-exited
	}
}

// stop terminates the process, and kills it if it does not end in time.
func (c *child) stop() {
	c.mu.Lock()
	process, stdin, exited := c.process, c.stdin, c.exited
	c.mu.Unlock()
	if process == nil {
		return
	}
	_ = stdin.Close()
	_ = process.Process.Signal(syscall.SIGTERM)
	late := time.NewTimer(endTime)
	defer late.Stop()
	select {
	case <-exited:
	case <-late.C:
		c.kill()
	}
}

// lastLines returns the end of the log, for an error.
func (c *child) lastLines() string {
	b, err := os.ReadFile(c.logFile())
	if err != nil || len(b) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	const most = 6
	return "; the end of its log:\n    " + strings.Join(lines[max(0, len(lines)-most):], "\n    ")
}
