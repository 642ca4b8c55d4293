// Package clock is the clock of a member. A member changes authorities by its own clock only while that clock agrees
// with those of a majority of members.
package clock

import (
	"errors"
	"time"
)

// CheckInterval is the time after which a member whose clock is not known to be right checks it again.
const CheckInterval = 250 * time.Millisecond

// ErrUnknown ends a transaction before it acts by a clock that is wrong.
var ErrUnknown = errors.New("this member's clock is not known to be that of the others; nothing was changed")

// Clock is the clock of a member. Both functions are required.
type Clock struct {
	Now func() time.Time
	// Sane reports whether the clock agrees with those of a majority.
	Sane func() bool
}

// Checked returns the time, or [ErrUnknown] if the clock is not known to be right. It reads the time before the check:
// a clock that is set in between gave a right time, or the check fails.
func (c Clock) Checked() (time.Time, error) {
	now := c.Now()
	if !c.Sane() {
		return time.Time{}, ErrUnknown
	}
	return now, nil
}
