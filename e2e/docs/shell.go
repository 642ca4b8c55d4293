package docs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// endTime is how long the commands in the background of a shell have for an orderly end.
const endTime = 20 * time.Second

// Shell is the shell of one place. Commands run in it one after the other.
type Shell struct {
	folder string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	tether *os.File // its other end is the input of the commands in the background, which end when it is closed
	logs   int
}

// endWithInput is the variable with which an entente process ends when its input does, so that none outlives the tests.
const endWithInput = "ENTENTE_END_WITH_STDIN"

// end begins the line after the output of a command. No command prints it.
const end = "-- end of output, status "

// NewShell starts a shell in a folder.
func NewShell(folder string, environment []string) (*Shell, error) {
	far, near, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = far.Close() }()
	s := &Shell{folder: folder, tether: near, cmd: exec.Command("bash", "--norc", "--noprofile")}
	s.cmd.Dir, s.cmd.Env = folder, environment
	s.cmd.ExtraFiles = []*os.File{far}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.cmd.Stderr = s.cmd.Stdout
	s.out = bufio.NewReader(out)
	return s, s.cmd.Start()
}

// Run runs a command and returns what it prints and its exit status.
func (s *Shell) Run(ctx context.Context, command string) (output []string, status int, err error) {
	return s.script(ctx, fmt.Sprintf("{ %s\n} </dev/null 3<&-", command))
}

// Start starts a command in the background and returns the file with its output.
func (s *Shell) Start(ctx context.Context, command string) (log string, err error) {
	s.logs++
	log = filepath.Join(s.folder, fmt.Sprintf(".%d-%d.log", s.cmd.Process.Pid, s.logs))
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		return "", err
	}
	command, _, _ = strings.Cut(command, " #")
	// A child of the shell itself, so that Close can wait for it.
	_, _, err = s.script(ctx, fmt.Sprintf("%s=1 %s >%q 2>&1 <&3 3<&- &", endWithInput, command, log))
	return log, err
}

// script runs text in the shell.
func (s *Shell) script(ctx context.Context, text string) (output []string, status int, err error) {
	if _, err := fmt.Fprintf(s.in, "%s\nprintf '\\n%s%%d\\n' $?\n", text, end); err != nil {
		return nil, 0, fmt.Errorf("the shell has ended: %w", err)
	}
	// A command that hangs is killed with everything in the background: the page has failed.
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) })
	defer stop()
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			return output, 0, errors.Join(fmt.Errorf("the shell has ended: %w", err), context.Cause(ctx))
		}
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, end); ok {
			status, err = strconv.Atoi(rest)
			return trim(output), status, err
		}
		output = append(output, line)
	}
}

// Close ends what runs in the background, and the shell.
func (s *Shell) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	_ = s.tether.Close()
	_, _, _ = s.script(ctx, "kill $(jobs -p) 2>&1; wait")
	_ = s.in.Close()
	_ = s.cmd.Wait()
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
}
