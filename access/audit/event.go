package audit

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Event is one line of the audit log.
type Event struct {
	// Caller is the text of the access.Caller, or the name of the member's own task, such as "federation".
	Caller string
	// Action is what was done, such as DomainService/CreateDomain or "accept bundle".
	Action string
	// Object is the object of the action, such as a trust domain, a SPIFFE ID or a member.
	Object string
	// Result is one of the constants below, or the reason of a refusal.
	Result string
	// Revision is the revision of the state after the change, or 0 if nothing was committed.
	Revision uint64
	// Detail holds further facts, and never a secret.
	Detail string
	// Call is equal in the line before an action and the line after it. It is empty for an event with one line.
	Call string
	// Durable makes Record return only when the line is on disk. Administrative changes set it.
	Durable bool
	// Withhold is set if the result of the action, such as a signature, does not leave the member before [Do] returns.
	// If the second line cannot be written, Do then returns an error, and the caller discards the result.
	Withhold bool
}

// Results of audited actions.
const (
	ResultBegun  = "begun"  // the action is about to run
	ResultDone   = "done"   // the action has been done
	ResultFailed = "failed" // the action failed, or its outcome is unknown: see Detail
	ResultDenied = "denied" // the caller may not do it
	// ResultRecorded is the result of an administrative change that was made on any member, and that this member has
	// copied from the cluster's record of such changes.
	ResultRecorded = "recorded"
	// ResultMissing names changes that this member would have copied, and that the record does not hold.
	ResultMissing = "missing"
)

// Recorded is an event in the log, with its time and the member that recorded it.
type Recorded struct {
	Time   time.Time
	Member string
	Event
}

// Limits of a line, so one call cannot fill the log: the length of a SPIFFE ID for names, and that of all DNS names of
// an X509-SVID for the detail.
const (
	maxFieldBytes  = 2048
	maxDetailBytes = 10 << 10
)

// recordJSON is the JSON form of a line. Its field names are those of entente.v1.AuditEvent.
type recordJSON struct {
	Time     time.Time `json:"time"`
	Member   string    `json:"member"`
	Caller   string    `json:"caller"`
	Action   string    `json:"action"`
	Object   string    `json:"object,omitempty"`
	Result   string    `json:"result"`
	Revision uint64    `json:"revision,omitempty"`
	Detail   string    `json:"detail,omitempty"`
	Call     string    `json:"call,omitempty"`
}

// line returns the event's line in the log, with its newline.
func (r Recorded) line() ([]byte, error) {
	b, err := json.Marshal(recordJSON{
		Time: r.Time, Member: r.Member, Caller: r.Caller, Action: r.Action, Object: r.Object,
		Result: r.Result, Revision: r.Revision, Detail: r.Detail, Call: r.Call,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the audit line of %s: %w", r.Action, err)
	}
	return append(b, '\n'), nil
}

// parseLine parses a line of the log.
func parseLine(b []byte) (Recorded, error) {
	var j recordJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Recorded{}, fmt.Errorf("read a line of the audit log: %w", err)
	}
	return Recorded{Time: j.Time, Member: j.Member, Event: Event{
		Caller: j.Caller, Action: j.Action, Object: j.Object, Result: j.Result,
		Revision: j.Revision, Detail: j.Detail, Call: j.Call,
	}}.clean(), nil
}

// clean returns the record with every field printable and within its limit.
func (r Recorded) clean() Recorded {
	for _, f := range []*string{&r.Caller, &r.Action, &r.Object, &r.Result, &r.Call} {
		*f = printable(*f, maxFieldBytes)
	}
	r.Detail = printable(r.Detail, maxDetailBytes)
	return r
}

// printable escapes, as in a Go string, everything that a terminal would interpret instead of showing it (control
// characters, line separators, marks of writing direction, invalid UTF-8), and truncates the text to limit bytes. It is
// idempotent.
func printable(s string, limit int) string {
	const more = "…"
	if len(s) <= limit && plain(s) {
		return s
	}
	var b strings.Builder
	room := 0 // the length of the longest prefix after which the mark still fits
	for i, r := range s {
		var piece string
		switch _, size := utf8.DecodeRuneInString(s[i:]); {
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, s[i])
		case !unicode.IsPrint(r):
			piece = strings.Trim(strconv.QuoteRune(r), "'")
		default:
			piece = string(r)
		}
		if b.Len()+len(piece) > limit {
			return b.String()[:room] + more
		}
		b.WriteString(piece)
		if b.Len()+len(more) <= limit {
			room = b.Len()
		}
	}
	return b.String()
}

// plain reports whether a text consists of printable ASCII, as almost every text does.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
