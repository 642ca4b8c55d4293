// Package session implements the protocol of a stream between two clusters, without network, clock or store.
//
// A [Session] is the state of one end of a stream. [Session.Receive] updates it by a message of the peer and returns
// what the message requires beyond the session; [Session.Next] returns the messages to send. What a session depends on
// of its cluster is passed as a [World]. Each side sends a hello, then which bundles it wants (PeerInterest) with the
// versions that it has; bundles, statements and acknowledgements follow, and heartbeats that name what is current. A
// peer that violates the protocol gets an [Error] with a reason from a bounded set, which ends the stream.
package session

import (
	"errors"
	"fmt"
)

// Error is the reason for which a stream ended. Reason is from a bounded set.
type Error struct {
	Reason, Text string
	// ByPeer is set if the peer ended the stream.
	ByPeer bool
}

func (e *Error) Error() string { return e.Text }

// Errorf returns an [Error] with which this side ends a stream.
func Errorf(reason, format string, args ...any) error {
	return &Error{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// OrderlyReasons are the reasons for which a side that works correctly ends a stream.
var OrderlyReasons = []string{"ended", "suspended", "draining", "moved", "duplicate", "superseded", "not_stored"}

// ReplacedReasons are those of [OrderlyReasons] that mean that another stream is kept instead.
var ReplacedReasons = []string{"moved", "duplicate", "superseded"}

// ReasonOf returns the reason of an error, or "lost" if it is no [Error].
func ReasonOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return "lost"
}
