package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// step is one step of the demo. Its function returns what it proved, or why it failed.
type step struct {
	name string
	run  func(ctx context.Context) (proved string, err error)
}

// result is a step as `--output json` prints it.
type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Millis int64  `json:"ms"`
}

// report prints the steps as they happen, or as one object at the end.
type report struct {
	out  io.Writer
	json bool
	// live is true on a terminal: then a step is printed before it runs, and its line is overwritten.
	live  bool
	ok    bool
	steps []result
	start time.Time
}

func newReport(o Options) *report {
	return &report{
		out:   o.Stdout,
		json:  o.JSON,
		live:  !o.JSON && isTerminal(o.Stdout),
		ok:    true,
		steps: []result{},
		start: time.Now(),
	}
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (r *report) begin(dir string) {
	if !r.json {
		fmt.Fprintf(r.out, "Two regions, eu and us, of three members each, in %s\n\n", dir)
	}
}

// run runs a step, unless one before it failed.
func (r *report) run(outer context.Context, s step) {
	done := result{Name: s.name}
	if !r.ok {
		done.Detail = "not run, because a step before it failed"
	} else {
		if r.live {
			fmt.Fprintf(r.out, "… %s\r", s.name)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeoutCause(outer, stepLimit, fmt.Errorf("the step took longer than %s; is "+
			"this machine very busy?", stepLimit))
		defer cancel()
		proved, err := s.run(ctx)
		done.OK, done.Detail, done.Millis = err == nil, proved, time.Since(start).Milliseconds()
		if err != nil {
			done.Detail = err.Error()
			if outer.Err() != nil {
				done.Detail = "interrupted"
			} else if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
				done.Detail = fmt.Sprintf("%v (%v)", err, cause)
			}
			r.ok = false
		}
		if !r.json {
			mark := "✓"
			if !done.OK {
				mark = "✗"
			}
			fmt.Fprintf(r.out, "%s %-64s %6.2f s\n  %s\n", mark, s.name, time.Since(start).Seconds(), done.Detail)
		}
	}
	r.steps = append(r.steps, done)
}

// end prints the summary, or the object.
func (r *report) end() error {
	if r.json {
		b, err := json.Marshal(struct {
			OK    bool     `json:"ok"`
			Steps []result `json:"steps"`
		}{r.ok, r.steps})
		if err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		_, err = fmt.Fprintf(r.out, "%s\n", b)
		return err
	}
	held := 0
	for _, s := range r.steps {
		if s.OK {
			held++
		}
	}
	_, err := fmt.Fprintf(
		r.out, "\n%d of %d steps held, in %.1f s.\n", held, len(r.steps), time.Since(r.start).Seconds(),
	)
	return err
}
