package logthrottle

import (
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// burst is how many lines pass before they are limited: enough for one failure that concerns a few members or trust
	// domains, each with a line of its own.
	burst = 5
	// interval is the time between two lines after the burst, and how long a line has to be absent to start anew.
	interval = time.Minute
	// maxLines bounds the lines that are told apart. The source of the process and its libraries has fewer.
	maxLines = 1024
)

// key is what makes two lines the same. The zero text with a level stands for all lines beyond maxLines.
type key struct {
	level      hclog.Level
	name, text string
}

// keyOf returns the key of a line: the message without its numbers.
func keyOf(level hclog.Level, name, message string) key {
	var text strings.Builder
	inNumber := false
	for i := range len(message) {
		digit := '0' <= message[i] && message[i] <= '9'
		switch {
		case !digit:
			text.WriteByte(message[i])
		case !inNumber:
			text.WriteByte('#')
		}
		inNumber = digit
	}
	return key{level: level, name: name, text: text.String()}
}

// line is what is known of one key.
type line struct {
	passed  int       // since the line started
	last    time.Time // of the line that passed last
	seen    time.Time // of the last line, passed or left out
	omitted int       // since the line that passed last
	level   hclog.Level
	message string // of the last line that was left out, as its logger
	log     hclog.Logger
}

// table decides which lines pass. The zero value is not usable.
type table map[key]*line

// admit reports whether a line passes now and, if so, how many were left out before it. A line that does not pass is
// counted, and kept with its logger for the line that ended returns.
func (t table) admit(k key, message string, log hclog.Logger, now time.Time) (omitted int, ok bool) {
	l := t[k]
	if l == nil {
		if len(t) >= maxLines {
			k = key{level: k.level}
			l = t[k]
		}
		if l == nil {
			l = &line{level: k.level}
			t[k] = l
		}
	}
	if now.Sub(l.seen) >= interval {
		l.passed = 0
	}
	l.seen = now
	if l.passed >= burst && now.Sub(l.last) < interval {
		l.omitted, l.message, l.log = l.omitted+1, message, log
		return 0, false
	}
	omitted = l.omitted
	l.passed, l.last, l.omitted, l.message, l.log = l.passed+1, now, 0, "", nil
	return omitted, true
}

// ended removes the lines that were absent for the interval, and returns those of them that still have a count. Next is
// when it has to be called again; zero: the table is empty.
func (t table) ended(now time.Time) (counted []*line, next time.Time) {
	for k, l := range t {
		end := l.seen.Add(interval)
		if end.After(now) {
			if next.IsZero() || end.Before(next) {
				next = end
			}
			continue
		}
		delete(t, k)
		if l.omitted > 0 {
			counted = append(counted, l)
		}
	}
	return counted, next
}
