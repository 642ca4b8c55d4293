package federation

import (
	"errors"
	"fmt"
)

// streamError is why a stream ended, by a name from a bounded set.
type streamError struct {
	reason, text string
	// goodbye says that it was the peer's decision.
	goodbye bool
}

func (e *streamError) Error() string { return e.text }

func violation(reason, format string, args ...any) error {
	return &streamError{reason: reason, text: fmt.Sprintf(format, args...)}
}

// goodbyes are the reasons for which a side in good order ends a stream.
var goodbyes = []string{"ended", "suspended", "draining", "moved", "duplicate", "superseded", "not_stored"}

// streamReason names why a stream ended.
func streamReason(err error) string {
	if e, ok := errors.AsType[*streamError](err); ok {
		return e.reason
	}
	return "lost"
}
