package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// stepLimit is how long one step may take: several times what the slowest needs on two slow cores.
const stepLimit = time.Minute

// ErrFailed is returned when a step did not hold. What failed has been printed by then.
var ErrFailed = errors.New("the demo failed: a step did not hold")

// Options say how the demo runs.
type Options struct {
	// Once ends the demo after its last step. Otherwise it stays up until ctx ends.
	Once bool
	// JSON prints one object on Stdout at the end and nothing else there. It needs Once.
	JSON bool
	// Stdout takes the story, or the object; Stderr what went wrong.
	Stdout, Stderr io.Writer
	// Executable is the entente binary whose `server` command is started; usually os.Executable().
	Executable string
}

// Run tells the story, and cleans up all that it made before it returns. The error is ErrFailed when a step did not
// hold, and nil when the demo was ended while it stayed up.
func Run(ctx context.Context, o Options) error {
	if o.JSON && !o.Once {
		return errors.New("--output json prints the result of a demo that ends: add --once")
	}
	r := newReport(o)
	w, err := newWorld(o.Executable)
	if err != nil {
		return err
	}
	defer w.close()

	s := &story{world: w}
	r.begin(w.dir)
	for _, step := range s.steps() {
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
	s.invite(o.Stdout, o.Executable)
	<-ctx.Done()
	fmt.Fprintln(o.Stdout, "\nStopping the members and removing their folders.")
	return nil
}
