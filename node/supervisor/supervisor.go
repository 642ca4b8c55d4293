// Package supervisor reports to systemd how a member is, by the protocol of sd_notify(3).
//
// [Supervisor.Ready] reports that the member has started. Until then [Supervisor.Run] extends the time that systemd
// gives it to start, so that a member with a large state is not killed. Then it reports the status of the member as it
// changes, and keeps systemd's watchdog from killing the process for as long as the member answers. A member that does
// not answer any more is killed and started again, with the stacks of its goroutines in the journal.
//
// Without systemd, nothing is reported and nothing is checked.
package supervisor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
)

const (
	// statusPace is the interval at which the status is read. It is reported when it has changed.
	statusPace = time.Second
	// extension is how long systemd waits from now on for a member that starts.
	extension = 30 * time.Second
	// checksPerWatchdog is how many checks there are in the time after which systemd kills the process, so that one
	// slow check costs nothing.
	checksPerWatchdog = 3
)

// Config has what a [Supervisor] reports.
type Config struct {
	// Status returns one line on the member for a person.
	Status func() string
	// Alive returns why the member does not answer, or nil. It is called only if systemd has a watchdog, and its
	// context ends before the next check.
	Alive func(ctx context.Context) error
	Log   hclog.Logger
}

// Supervisor reports to systemd. Its methods can be called from any goroutine.
type Supervisor struct {
	config Config
	once   sync.Once
	ready  chan struct{}
	// note is added to the status: the outcome of the last reload.
	note atomic.Pointer[string]
}

// New returns a supervisor that reports once it runs.
func New(c Config) *Supervisor { return &Supervisor{config: c, ready: make(chan struct{})} }

// Ready reports that the member has started. Calls after the first have no effect.
func (s *Supervisor) Ready() {
	s.once.Do(func() {
		s.notify(daemon.SdNotifyReady, "STATUS="+s.status())
		close(s.ready)
	})
}

// Reloading reports that the member reads its configuration again.
func (s *Supervisor) Reloading() {
	s.notify(daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec())
}

// Reloaded reports that Reloading is over. A refusal stays in the status until the next reload.
func (s *Supervisor) Reloaded(refusal error) {
	note := ""
	if refusal != nil {
		note = "; reload refused: " + oneLine(refusal.Error())
	}
	s.note.Store(&note)
	s.notify(daemon.SdNotifyReady, "STATUS="+s.status())
}

// Stopping reports that the member stops.
func (s *Supervisor) Stopping() { s.notify(daemon.SdNotifyStopping, "STATUS=stopping") }

// Run reports until ctx ends.
func (s *Supervisor) Run(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.config.Log.Warn("systemd's watchdog is not kept informed: its interval cannot be read", "error", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	if limit > 0 {
		group.Go(func() error { return s.watch(ctx, limit/checksPerWatchdog) })
	}
	group.Go(func() error { return s.every(ctx, statusPace, nil, s.reporter()) })
	return group.Wait()
}

// start extends the time to start until the member is ready.
func (s *Supervisor) start(ctx context.Context) error {
	report := s.reporter()
	return s.every(ctx, extension/checksPerWatchdog, s.ready, func() {
		s.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extension.Microseconds()))
		report()
	})
}

// every calls f now and then at an interval, until ctx ends or done is closed.
func (s *Supervisor) every(ctx context.Context, interval time.Duration, done <-chan struct{}, f func()) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			return nil
		case <-ticker.C:
		}
	}
}

// watch resets the watchdog as long as the member answers.
func (s *Supervisor) watch(ctx context.Context, interval time.Duration) error {
	return s.every(ctx, interval, nil, func() {
		limited, cancel := context.WithTimeout(ctx, interval)
		defer cancel()
		switch err := s.config.Alive(limited); {
		case err == nil:
			s.notify(daemon.SdNotifyWatchdog)
		case ctx.Err() == nil:
			s.config.Log.Error("the member does not respond; systemd restarts it when the watchdog expires",
				"error", err)
		}
	})
}

// reporter returns a function that reports the status if it is not the one that it has reported last.
func (s *Supervisor) reporter() func() {
	last := ""
	return func() {
		if now := s.status(); now != last {
			last = now
			s.notify("STATUS=" + now)
		}
	}
}

func (s *Supervisor) status() string {
	status := oneLine(s.config.Status())
	if note := s.note.Load(); note != nil {
		status += *note
	}
	return status
}

// notify sends to systemd, if there is one. What it does not receive has no other effect than that it does not know it.
func (s *Supervisor) notify(state ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(state, "\n")); err != nil {
		s.config.Log.Debug("systemd did not receive the state of the member", "error", err)
	}
}

// oneLine makes one line of a text, as the protocol requires.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
