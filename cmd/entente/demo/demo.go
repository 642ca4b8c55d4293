package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// stepLimit is how long one step may take: several times what the slowest step needs on two slow cores.
const stepLimit = time.Minute

// ErrFailed is returned when a step failed, which has been printed.
var ErrFailed = errors.New("the demo failed: a step did not hold")

// Options configure a demo.
type Options struct {
	// Once ends the demo after its last step. Otherwise it runs until ctx ends.
	Once bool
	// Apart leaves the regions unfederated, for the user to federate: the demo then has its first step alone.
	Apart bool
	// JSON prints one object on Stdout at the end and nothing else there. It needs Once.
	JSON bool
	// Stdout receives the steps, or the object; Stderr receives errors.
	Stdout, Stderr io.Writer
	// Executable is the path of the entente binary, usually os.Executable().
	Executable string
}

// Run runs the steps, and removes what it made before it returns. The error is ErrFailed if a step failed, and nil if
// ctx ended after the last step.
func Run(ctx context.Context, o Options) error {
	if o.JSON && !o.Once {
		return errors.New("--output json needs --once")
	}
	r := newReport(o)
	w, err := newWorld(o.Executable)
	if err != nil {
		return err
	}
	defer w.close()

	s := &story{world: w}
	r.begin(w.dir)
	steps := s.steps()
	if o.Apart {
		steps = s.apart()
	}
	for _, step := range steps {
		r.run(ctx, step)
	}
	if !r.ok && ctx.Err() == nil {
		w.explain(o.Stderr)
	}
	if err := r.end(); err != nil {
		return err
	}
	switch {
	case !r.ok && ctx.Err() != nil:
		return ctx.Err()
	case !r.ok:
		return ErrFailed
	case o.Once:
		return nil
	}
	s.invite(o.Stdout, o.Executable, o.Apart)
	<-ctx.Done()
	fmt.Fprintln(o.Stdout, "\nStopping the members and removing their folders.")
	return nil
}
