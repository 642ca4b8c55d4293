package debug

import (
	"bytes"
	"io"
	"sync"
)

// tailBytes is how much of the log is kept.
const tailBytes = 512 << 10

// Tail passes a log on, and keeps its end. The zero value keeps it and passes it nowhere.
type Tail struct {
	to io.Writer

	mu   sync.Mutex
	kept []byte // a ring once it is full
	next int    // where the next byte goes
	full bool
}

// NewTail returns a tail that passes the log on to a writer.
func NewTail(to io.Writer) *Tail { return &Tail{to: to} }

// Write implements io.Writer. A writer that hangs does not keep the end of the log from being read.
func (t *Tail) Write(line []byte) (int, error) {
	t.keep(line)
	if t.to == nil {
		return len(line), nil
	}
	return t.to.Write(line)
}

func (t *Tail) keep(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept == nil {
		t.kept = make([]byte, tailBytes)
	}
	for line = line[max(0, len(line)-tailBytes):]; len(line) > 0; {
		n := copy(t.kept[t.next:], line)
		line = line[n:]
		if t.next += n; t.next == tailBytes {
			t.next, t.full = 0, true
		}
	}
}

// Lines returns the whole lines that are kept.
func (t *Tail) Lines() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.full {
		return bytes.Clone(t.kept[:t.next]), nil
	}
	all := append(bytes.Clone(t.kept[t.next:]), t.kept[:t.next]...)
	if i := bytes.IndexByte(all, '\n'); i >= 0 {
		all = all[i+1:]
	}
	return all, nil
}
