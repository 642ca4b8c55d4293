package session

import (
	"errors"
	"fmt"
)

// Error is why a stream ended, by a name from a bounded set.
type Error struct {
	Reason, Text string
	// ByPeer says that it was the peer's decision.
	ByPeer bool
}

func (e *Error) Error() string { return e.Text }

func Errorf(reason, format string, args ...any) error {
	return &Error{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// OrderlyReasons are the reasons for which a side in good order ends a stream.
var OrderlyReasons = []string{"ended", "suspended", "draining", "moved", "duplicate", "superseded", "not_stored"}

// ReasonOf names why a stream ended.
func ReasonOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return "lost"
}
