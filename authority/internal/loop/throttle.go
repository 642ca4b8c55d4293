package loop

import "time"

const (
	// repeatChanged is the shortest time between two log lines for failures with different texts: a text that contains
	// a port or a time differs at each attempt.
	repeatChanged = time.Minute
	// repeatSame is the shortest time between two log lines for the same failure.
	repeatSame = 10 * time.Minute
)

// throttle limits the log lines of a loop that keeps failing, so that an outage of hours takes a few lines.
type throttle struct {
	text   string
	logged time.Time // zero while the loop succeeds
}

// failed reports whether a failure deserves a log line now.
func (t *throttle) failed(text string, now time.Time) bool {
	since := now.Sub(t.logged)
	if !t.logged.IsZero() && (since < repeatChanged || text == t.text && since < repeatSame) {
		return false
	}
	t.text, t.logged = text, now
	return true
}

// succeeded resets the throttle, and reports whether a failure had been logged.
func (t *throttle) succeeded() bool {
	failed := !t.logged.IsZero()
	*t = throttle{}
	return failed
}
