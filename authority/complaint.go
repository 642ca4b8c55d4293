package authority

import "time"

const (
	// repeatChanged is how long a loop is silent after a complaint though it fails for another reason: reasons that hold a port or
	// a time differ each time.
	repeatChanged = time.Minute
	// repeatSame is how long it is silent while it fails for the same one.
	repeatSame = 10 * time.Minute
)

// complaint is what a loop that fails has told the log, so that an outage of hours is a few lines and not thousands.
type complaint struct {
	text string
	said time.Time // zero while all is well
}

// worth says whether a failure is worth a line.
func (c *complaint) worth(text string, now time.Time) bool {
	since := now.Sub(c.said)
	if !c.said.IsZero() && (since < repeatChanged || text == c.text && since < repeatSame) {
		return false
	}
	c.text, c.said = text, now
	return true
}

// over takes note that all is well, and says whether that is worth a line.
func (c *complaint) over() bool {
	failed := !c.said.IsZero()
	*c = complaint{}
	return failed
}
