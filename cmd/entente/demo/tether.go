package demo

import (
	"io"
	"os"
	"syscall"
	"time"
)

// tetherVariable is set in the environment of the demo's children.
const tetherVariable = "ENTENTE_END_WITH_STDIN"

// endTime is how long a child has for an orderly end before it is killed.
const endTime = 5 * time.Second

// EndWithParent makes this process end when its standard input does, if a demo started it: the demo holds the other end
// of that pipe and never writes, so the input ends when the demo closes it, or dies. main calls it first.
func EndWithParent() {
	if os.Getenv(tetherVariable) == "" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		time.AfterFunc(endTime, func() { os.Exit(1) })
		if self, err := os.FindProcess(os.Getpid()); err != nil || self.Signal(syscall.SIGTERM) != nil {
			os.Exit(1)
		}
	}()
}
