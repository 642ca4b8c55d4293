package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Config configures a [Log].
type Config struct {
	// Path is the file. Open creates it with mode 0600. Its folder must exist.
	Path string
	// Member is the ID of this member.
	Member     string
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Log is the audit log of one member: a file of JSON lines that only grows. Its methods can be called from any
// goroutine.
type Log struct {
	path   string
	member string
	logger hclog.Logger
	now    func() time.Time
	lines  *prometheus.CounterVec

	queueMu sync.Mutex
	queue   []*queuedLine // the next goroutine that holds mu writes them

	mu      sync.Mutex // orders lines in the file, in the ring and for followers
	file    *os.File   // nil once closed
	torn    bool       // the file ends with a part of a line
	links   *os.File   // has the last link
	last    link       // of the last line
	buffer  []byte     // of the lines that are written at once
	id      fileID     // of the file
	written uint64     // lines since the start
	ring    ring
	tails   map[*Tail]bool
	// end is the size of the file, reserved where the room that is kept for it ends, and reserveNext when the next
	// attempt to keep some may be made.
	end, reserved int64
	reserveNext   time.Time

	health health

	syncMu sync.Mutex // held during fsync; taken before mu
	synced uint64     // lines on disk
}

// ErrClosed is returned after Close, while the member stops.
var ErrClosed = errors.New("the audit log is closed: the member is stopping")

// Open opens the audit log, and creates it if it is missing. It accepts only a regular file, and sets its mode to 0600.
func Open(cfg Config) (*Log, error) {
	l := &Log{
		path:   cfg.Path,
		member: cfg.Member,
		logger: cfg.Logger,
		now:    cfg.Now,
		tails:  make(map[*Tail]bool),
		lines: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_access_audit_lines_total",
			Help: "Lines of the audit log, by whether they were written.",
		}, []string{"result"}),
	}
	if l.logger == nil {
		l.logger = hclog.NewNullLogger()
	}
	if l.now == nil {
		l.now = time.Now
	}
	for _, r := range []string{"written", "failed"} {
		l.lines.WithLabelValues(r)
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(l.lines); err != nil {
			return nil, fmt.Errorf("register the metrics of the audit log: %w", err)
		}
	}
	f, err := openLogFile(cfg.Path)
	if err != nil {
		return nil, err
	}
	tail, err := readEnd(f)
	var alarm error
	if err == nil {
		l.id = identify(f)
		l.links, l.last, alarm, err = openEnd(cfg.Path, l.id, tail.lines)
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, fmt.Errorf("read the end of the audit log %s: %w", cfg.Path, err)
	}
	if alarm != nil {
		l.logger.Error("the audit log is damaged; the member continues it", "path", cfg.Path, "reason", alarm)
	}
	l.file, l.torn, l.end = f, tail.torn, tail.size
	l.reserve()
	for _, r := range tail.events {
		l.ring.add(r)
	}
	return l, nil
}

func openLogFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log %s: %w: without it nothing can be signed or changed", path, err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("it is not a regular file")
	case info.Mode().Perm()&^fs.FileMode(0o600) != 0:
		err = f.Chmod(0o600)
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, fmt.Errorf("open the audit log %s: %w: without it nothing can be signed or changed", path, err)
	}
	return f, nil
}

// endBytes is how much of the file Open reads: some thousand lines.
const endBytes = 512 << 10

// logEnd is the end of a file.
type logEnd struct {
	events []Recorded // of the last lines
	lines  [][]byte   // those lines
	torn   bool       // the file ends with a part of a line
	size   int64
}

// readEnd reads the last lines. It skips those that it cannot parse, such as one that a full disk cut short.
func readEnd(f *os.File) (end logEnd, err error) {
	info, err := f.Stat()
	if err != nil {
		return end, err
	}
	from := max(0, info.Size()-endBytes)
	b, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	if err != nil || len(b) == 0 {
		return end, err
	}
	if from > 0 {
		_, b, _ = bytes.Cut(b, []byte{'\n'})
	}
	for line := range bytes.Lines(b) {
		if r, err := parseLine(line); err == nil {
			end.events, end.lines = append(end.events, r), append(end.lines, line)
		}
	}
	end.torn, end.size = !bytes.HasSuffix(b, []byte{'\n'}), info.Size()
	return end, nil
}

// Record writes the event as one line. If it returns an error, the event may not be in the log, and the caller must not
// do what it announces. If e.Durable is set, the line is on disk when Record returns nil.
func (l *Log) Record(e Event) error {
	n, err := l.write(e)
	if err == nil && e.Durable {
		err = l.sync(n)
	}
	if err != nil {
		l.lines.WithLabelValues("failed").Inc()
		l.logger.Error("cannot write the audit log: what cannot be audited is neither signed nor changed",
			"path", l.path, "error", err)
		return fmt.Errorf("write the audit log %s: %w", l.path, err)
	}
	l.lines.WithLabelValues("written").Inc()
	return nil
}

// queuedLine is a line that waits for its write. Log.mu guards all fields but bytes.
type queuedLine struct {
	event  Recorded
	bytes  []byte // without the link to the line before
	link   link
	end    int // of the line in what is written at once
	done   bool
	number uint64
	err    error
}

// write appends the event's line, and returns its number. Lines that arrive during a write share the next one: a member
// signs many times a second, and each signature waits for its lines.
func (l *Log) write(e Event) (uint64, error) {
	q := &queuedLine{event: Recorded{Time: l.now().UTC(), Member: l.member, Event: e}.clean()}
	var err error
	if q.bytes, err = q.event.line(); err != nil {
		return 0, err
	}
	l.queueMu.Lock()
	l.queue = append(l.queue, q)
	l.queueMu.Unlock()

	l.mu.Lock()
	defer l.mu.Unlock()
	if !q.done {
		l.flush()
	}
	return q.number, q.err
}

// maxBuffer bounds the buffer that is kept between writes.
const maxBuffer = 64 << 10

// flush writes all queued lines. The caller holds mu, and its line is in the queue.
func (l *Log) flush() {
	l.queueMu.Lock()
	lines := l.queue
	l.queue = nil
	l.queueMu.Unlock()
	all := l.buffer[:0]
	if l.torn {
		all = append(all, '\n')
	}
	last := l.last
	for _, q := range lines {
		from := len(all)
		all = appendChained(all, q.bytes, last)
		last = linkOf(all[from:])
		q.link, q.end = last, len(all)
	}
	if cap(all) <= maxBuffer {
		l.buffer = all
	}
	written, err := 0, ErrClosed
	done := l.health.begin(writing, l.now())
	if l.file != nil {
		written, err = l.file.Write(all)
	}
	done(err)
	l.end += int64(written)
	l.reserve()
	// If the disk fills up, only some of the lines are in the log.
	for _, q := range lines {
		q.done = true
		if q.end > written {
			q.err = err
			continue
		}
		l.written++
		q.number = l.written
		l.last = q.link
		l.ring.add(q.event)
		for t := range l.tails {
			if !t.append(q.event) {
				delete(l.tails, t)
			}
		}
	}
	if written > 0 {
		l.torn = all[written-1] != '\n'
		_, _ = l.links.WriteAt(encodeEnd(end{l.last, l.id}), 0) // the events are in the log; the next line repeats it
	}
}

// sync returns once line n is on disk. Lines that are written during an fsync share the next one.
func (l *Log) sync(n uint64) error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	if l.synced >= n {
		return nil
	}
	l.mu.Lock()
	file, written := l.file, l.written
	l.mu.Unlock()
	if file == nil {
		return ErrClosed
	}
	end := l.health.begin(syncing, l.now())
	err := file.Sync()
	end(err)
	if err != nil {
		return err
	}
	l.synced = written
	return nil
}

// Reopen opens the file at the log's path again, after log rotation has moved the current one. If that fails, the log
// keeps the current file.
func (l *Log) Reopen() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return ErrClosed
	}
	f, err := openLogFile(l.path)
	if err != nil {
		return err
	}
	end, err := readEnd(f)
	if err == nil {
		err = release(l.file, l.end)
	}
	if err == nil {
		err = l.file.Sync() // it may hold durable lines that are not on disk
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return fmt.Errorf("reopen the audit log %s: %w", l.path, err)
	}
	_ = l.file.Close() // synced above
	l.file, l.torn, l.synced, l.end, l.reserved = f, end.torn, l.written, end.size, 0
	l.id = identify(f)
	l.reserve()
	return nil
}

// Close closes the file and ends all tails. Record returns an error from then on.
func (l *Log) Close() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	for t := range l.tails {
		t.end(ErrClosed)
	}
	clear(l.tails)
	err := errors.Join(release(l.file, l.end), l.file.Sync(), l.file.Close(), l.links.Sync(), l.links.Close())
	l.file = nil
	if err != nil {
		return fmt.Errorf("close the audit log %s: %w", l.path, err)
	}
	return nil
}
