package logthrottle

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Throttle limits the lines of a logger and of all that are derived from it.
type Throttle struct {
	mu     sync.Mutex // not held while a line is written, which can hang with the disk
	table  table
	timer  *time.Timer // nil while the table is empty
	closed bool

	writing sync.Mutex // held by the writer of counts, so that Close waits for it
}

// New returns a logger that writes to log and limits repeated lines, and its throttle, which the caller closes.
func New(log hclog.Logger) (hclog.Logger, *Throttle) {
	t := &Throttle{table: table{}}
	return &logger{Logger: log, throttle: t}, t
}

// Unlimited returns the logger without the limit, for lines that have a finer one of their own.
func Unlimited(log hclog.Logger) hclog.Logger {
	if l, ok := log.(*logger); ok {
		return l.Logger
	}
	return log
}

// Close writes the counts that are not in the log yet. Later lines are not limited. It blocks for as long as the output
// of the log does.
func (t *Throttle) Close() {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
	rest, _ := t.table.ended(time.Now().Add(interval))
	t.mu.Unlock()
	write(rest)
}

// admit reports whether a line passes and, if so, how many were left out before it.
func (t *Throttle) admit(log hclog.Logger, level hclog.Level, message string) (omitted int, ok bool) {
	k := keyOf(level, log.Name(), message)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, true
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(interval, t.sweep)
	}
	return t.table.admit(k, message, log, time.Now())
}

// sweep writes the counts of the lines that ended.
func (t *Throttle) sweep() {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	now := time.Now()
	counted, next := t.table.ended(now)
	if t.timer = nil; !next.IsZero() {
		t.timer = time.AfterFunc(next.Sub(now), t.sweep)
	}
	t.mu.Unlock()
	write(counted)
}

func write(counted []*line) {
	for _, l := range counted {
		l.log.Log(l.level, l.message, Omitted, l.omitted)
	}
}

// Omitted is the field with the number of lines that were left out.
const Omitted = "omitted"

// logger is a logger whose lines pass through the throttle.
type logger struct {
	hclog.Logger

	throttle *Throttle
}

// Log implements hclog.Logger.
func (l *logger) Log(level hclog.Level, message string, args ...any) {
	if level < hclog.Warn || level < l.GetLevel() {
		l.Logger.Log(level, message, args...)
		return
	}
	omitted, ok := l.throttle.admit(l.Logger, level, message)
	if !ok {
		return
	}
	if omitted > 0 {
		args = append(args[:len(args):len(args)], Omitted, omitted)
	}
	l.Logger.Log(level, message, args...)
}

// Warn implements hclog.Logger.
func (l *logger) Warn(message string, args ...any) { l.Log(hclog.Warn, message, args...) }

// Error implements hclog.Logger.
func (l *logger) Error(message string, args ...any) { l.Log(hclog.Error, message, args...) }

// With implements hclog.Logger.
func (l *logger) With(args ...any) hclog.Logger { return &logger{l.Logger.With(args...), l.throttle} }

// Named implements hclog.Logger.
func (l *logger) Named(name string) hclog.Logger { return &logger{l.Logger.Named(name), l.throttle} }

// ResetNamed implements hclog.Logger.
func (l *logger) ResetNamed(name string) hclog.Logger {
	return &logger{l.Logger.ResetNamed(name), l.throttle}
}
