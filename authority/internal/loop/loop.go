// Package loop runs the reconcile functions of package authority: at each change of the tables, at the time that the
// function itself returns, and after a failure with backoff and jitter.
package loop

import (
	"context"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// FirstRetry is the wait after the first failure. It is short enough for an election.
	FirstRetry = 200 * time.Millisecond
	// LastRetry is the longest wait between attempts. It does not flood an upstream that is down for hours.
	LastRetry = 30 * time.Second
)

func newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor = FirstRetry, LastRetry, 0.5
	return b
}

// Runner runs reconcile functions. Failures and Starting are optional.
type Runner struct {
	// Changed is fired at each change that the functions depend on.
	Changed *Signal
	Now     func() time.Time
	Log     hclog.Logger
	// Failures counts failed runs. If nil, they are not counted.
	Failures prometheus.Counter
	// Starting reports whether a member starts, whose failures are information. If nil, none are.
	Starting func() bool
}

// Run calls once at every change and at the times that it returns (zero: only at a change), until ctx ends. It returns
// the error of ctx. Task completes the log line "cannot …".
func (r *Runner) Run(ctx context.Context, task string, once func(context.Context) (time.Time, error)) error {
	retry := newBackoff()
	failing := false
	for {
		changed := r.Changed.Next()
		level := hclog.Warn
		if r.Starting != nil && r.Starting() {
			level = hclog.Info
		}
		next, err := once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := until(next, r.Now())
		if err != nil {
			wait, changed = retry.NextBackOff(), nil
			if r.Failures != nil {
				r.Failures.Inc()
			}
			failing = true
			r.Log.Log(level, "cannot "+task+"; retrying", "error", OneLine(err), "in", wait)
		} else {
			retry.Reset()
			if failing {
				r.Log.Info("recovered: can " + task)
			}
			failing = false
		}
		if err := WaitFor(ctx, changed, wait); err != nil {
			return err
		}
	}
}

// OneLine returns the text of an error in one line, for a log with one event a line. [errors.Join] puts each error on
// a line of its own.
func OneLine(err error) string { return strings.Join(strings.Split(err.Error(), "\n"), "; ") }
