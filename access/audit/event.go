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
	// Caller is who caused it: Caller.String(), or the name of the member's own task, such as "federation".
	Caller string
	// Action is what was done, such as DomainService/CreateDomain or "accept bundle".
	Action string
	// Object is what it was done to: a trust domain, a SPIFFE ID, a member.
	Object string
	// Result is one of the constants below, or a refusal's reason.
	Result string
	// Revision is that of the state after the change; 0 where nothing was committed.
	Revision uint64
	// Detail is what else matters, never a secret.
	Detail string
	// Call joins the line before a call with the one after it; empty for what is recorded once.
	Call string
	// Durable asks that the line be on the disk when Record returns. Administrative changes are.
	Durable bool
	// Withhold tells [Do] that the action's result has not left the member until Do returns. If the second line cannot
	// be written, Do returns an error and the result is discarded. Signatures set it.
	Withhold bool
}

// Results of audited actions.
const (
	ResultBegun  = "begun"  // it is about to be done
	ResultDone   = "done"   // it has been done
	ResultFailed = "failed" // it was not done, or its outcome is not known: Detail says which
	ResultDenied = "denied" // the caller may not
)

// Recorded is an event as it stands in the log: with its time, and the member that recorded it.
type Recorded struct {
	Time   time.Time
	Member string
	Event
}

// Bounds of a line, so that nobody fills the log with one call: of a SPIFFE ID's length for what names
// something; for the detail of all the DNS names that an X509-SVID can have, which have to be there whole.
const (
	maxFieldBytes  = 2048
	maxDetailBytes = 10 << 10
)

// recordJSON is the line's form: the field names of entente.v1.AuditEvent.
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

// line is the event's line in the log, newline included. Whatever its fields hold, it is one line of
// printable text: what is not printable is escaped, what is too long is cut.
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

// parseLine reads a line that line wrote.
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

// clean returns the record with every field printable and within its bound.
func (r Recorded) clean() Recorded {
	for _, f := range []*string{&r.Caller, &r.Action, &r.Object, &r.Result, &r.Call} {
		*f = printable(*f, maxFieldBytes)
	}
	r.Detail = printable(r.Detail, maxDetailBytes)
	return r
}

// printable escapes, as in a Go string, everything that a terminal would not simply show (control characters,
// line separators, marks that turn the direction of writing, broken UTF-8), and cuts what passes limit bytes.
// What it returns it leaves as it is.
func printable(s string, limit int) string {
	const more = "…"
	if len(s) <= limit && plain(s) {
		return s
	}
	var b strings.Builder
	room := 0 // how much of it leaves room for the mark behind it
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

// plain says whether a text is of printable ASCII alone, as almost every one is.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
