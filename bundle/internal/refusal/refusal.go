// Package refusal makes sentinel errors that have a short name for metrics, and quotes foreign text for error messages.
package refusal

import "fmt"

// Error is a sentinel error with a name that is short and bounded enough for a metric label.
type Error struct{ reason, text string }

// New returns a sentinel error.
func New(reason, text string) error { return &Error{reason, text} }

func (r *Error) Error() string { return r.text }

// Reason returns the name of the refusal.
func (r *Error) Reason() string { return r.reason }

// Clip quotes a string from outside for an error, cut to a length that fits in one line.
func Clip(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
