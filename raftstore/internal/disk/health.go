package disk

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// probeEvery is how often the disk is checked, and hangsAfter how long a call may take before the member counts as
	// unable to write. Together they bound how long a fault goes unnoticed. What is left of two seconds is for the
	// report to the other members.
	probeEvery = 750 * time.Millisecond
	hangsAfter = time.Second
	// leastFree is the room below which a disk counts as full, before a write fails: a batch of the log, and the pages
	// that it copies.
	leastFree = 8 << 20
	// enoughFree is the room with which a full disk counts as writable again. The distance prevents that a member
	// alternates.
	enoughFree = 2 * leastFree
)

// Health is whether the disk of the data folder accepts writes, as far as the calls to it and the probes between them
// show. It is read from memory alone.
type Health struct {
	watchdog watchdog
	files    Probe
	log      hclog.Logger
	now      func() time.Time

	// serving is set before Raft starts: from then on no call returns an error at which Raft would panic.
	serving atomic.Bool
	stopped atomic.Pointer[error]
	space   atomic.Pointer[Space]

	mu sync.Mutex
	// refused is why the last write found no room; nil: there is room.
	refused error
	// room is closed when there is room again.
	room    chan struct{}
	pending map[*call]struct{}
	writes  samples
	// closing is closed when the store is about to be closed; closed is set when no further call may begin.
	closing chan struct{}
	closed  bool
	calls   sync.WaitGroup
}

// call is one call to the disk that has not returned.
type call struct {
	what  string
	since time.Time
}

func newHealth(c Config) *Health {
	h := &Health{
		watchdog: watchdog{limit: c.Limit, observe: c.Observe, fail: c.Fail},
		files:    c.Probe, log: c.Logger, now: time.Now,
		pending: make(map[*call]struct{}), closing: make(chan struct{}),
	}
	if h.files == nil {
		h.files = folder{dir: c.Dir}
	}
	return h
}

// Err returns why this member cannot write at the moment, or nil.
func (h *Health) Err() error { return h.unable(hangsAfter) }

// CannotVote returns why this member can neither vote nor stand for election, or nil. A slow disk can; one that is full
// or hangs cannot.
func (h *Health) CannotVote() error { return h.unable(h.watchdog.limit / 2) }

// unable returns why this member cannot write, if the oldest call has taken longer than longest.
func (h *Health) unable(longest time.Duration) error {
	if stopped := h.stopped.Load(); stopped != nil {
		return *stopped
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fullLocked(); err != nil {
		return err
	}
	oldest := h.oldest()
	if oldest == nil || h.now().Sub(oldest.since) <= longest {
		return nil
	}
	return fmt.Errorf("the disk of the data folder hangs or is far too slow: %s has not returned for %s",
		oldest.what, h.now().Sub(oldest.since).Round(100*time.Millisecond))
}

// full returns why there is no room, or nil.
func (h *Health) full() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fullLocked()
}

func (h *Health) fullLocked() error {
	if h.refused == nil {
		return nil
	}
	return fmt.Errorf("the disk of the data folder is full: %w; make room, and the member continues by itself",
		h.refused)
}

func (h *Health) oldest() (oldest *call) {
	for c := range h.pending {
		if oldest == nil || c.since.Before(oldest.since) {
			oldest = c
		}
	}
	return oldest
}

// Median returns the median time of the writes of the last ten seconds; 0: there were none. A write that has not
// returned counts with the time that it has taken.
func (h *Health) Median() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	var running time.Duration
	if oldest := h.oldest(); oldest != nil {
		running = now.Sub(oldest.since)
	}
	return h.writes.median(now, running)
}

// begin registers a call until the function that it returns is called. A call that begins after the member stopped, or
// after the store was closed, does not return, because Raft would panic at its error.
func (h *Health) begin(what string) (end func()) {
	c := &call{what: what, since: h.now()}
	h.mu.Lock()
	if h.closed || h.stopped.Load() != nil {
		h.mu.Unlock()
		runtime.Goexit()
	}
	h.calls.Add(1)
	h.pending[c] = struct{}{}
	h.mu.Unlock()
	endWatch := h.watchdog.begin(what)
	return func() {
		endWatch()
		h.mu.Lock()
		delete(h.pending, c)
		h.mu.Unlock()
		h.calls.Done()
	}
}

// write makes one write. An error means that it found no room, or that Raft does not run yet: any other fault stops the
// member, because a disk that has failed a write can have lost others.
func (h *Health) write(what string, fn func() error) error {
	since := h.now()
	end := h.begin(what)
	err := fn()
	end()
	switch {
	case err == nil:
		h.mu.Lock()
		h.writes.add(h.now(), h.now().Sub(since))
		h.mu.Unlock()
	case noRoom(err):
		h.refuse(err)
	default:
		h.stop(what, err)
	}
	return err
}

// mustWrite makes one write whose error Raft cannot take. Without room it is repeated once there is room.
func (h *Health) mustWrite(what string, fn func() error) error {
	for {
		err := h.write(what, fn)
		if err == nil || !h.serving.Load() {
			return err
		}
		h.mu.Lock()
		room := h.room
		h.mu.Unlock()
		if room == nil {
			continue
		}
		select {
		case <-room:
		case <-h.closing:
			runtime.Goexit()
		}
	}
}

// read makes one read. A fault of the disk, or a damaged record, stops the member.
func (h *Health) read(what string, fn func() error) error {
	end := h.begin(what)
	err := fn()
	end()
	var fault syscall.Errno
	if errors.As(err, &fault) || errors.Is(err, ErrDamaged) {
		h.stop(what, err)
	}
	return err
}

// noRoom reports whether a write failed because the disk, or the user's quota, is full.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// stop ends this member's part in Raft, if that runs. It does not return then: the goroutine that met the fault ends,
// because Raft would panic at the error.
func (h *Health) stop(what string, err error) {
	if !h.serving.Load() {
		return
	}
	stopped := err
	if !errors.Is(err, ErrDamaged) {
		stopped = fmt.Errorf("member stopped: %s failed: %w; check the disk of the data folder", what, err)
	}
	if h.stopped.CompareAndSwap(nil, &stopped) {
		h.watchdog.fail(stopped)
	}
	runtime.Goexit()
}

func (h *Health) refuse(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused == nil {
		h.room = make(chan struct{})
		h.log.Error("the disk of the data folder is full: this member neither votes nor leads until there is room",
			"error", err)
	}
	h.refused = err
}

func (h *Health) accept() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused != nil {
		h.refused = nil
		close(h.room)
		h.room = nil
		h.log.Info("the disk of the data folder has room again: this member votes and writes")
	}
}

// Space returns the room that was left at the last probe, and whether there was one.
func (h *Health) Space() (Space, bool) {
	s := h.space.Load()
	if s == nil || s.Total == 0 {
		return Space{}, false
	}
	return *s, true
}

// Run probes the disk until ctx ends.
func (h *Health) Run(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var warned warning
	for {
		h.probe()
		if s, ok := h.Space(); ok {
			warned = h.warn(warned, s)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// probe checks the disk once. It writes only if nothing else was written since the last probe, or if the disk was full.
func (h *Health) probe() {
	h.mu.Lock()
	full := h.refused != nil
	idle := !h.writes.since(h.now().Add(-probeEvery))
	h.mu.Unlock()
	end := h.begin("reading the free space")
	space, err := h.files.Space()
	end()
	if err == nil {
		h.space.Store(&space)
	}
	switch {
	case err == nil && space.Total > 0 && space.Free < leastFree:
		h.refuse(fmt.Errorf("%d bytes are free", space.Free))
	case full && err == nil && space.Total > 0 && space.Free < enoughFree:
	case full:
		end := h.begin("writing to a full disk")
		err := h.files.Room()
		end()
		if err == nil {
			h.accept()
		}
	case idle:
		_ = h.write("writing a probe", h.files.Touch) // what it returns is in h
	}
}

// release lets no write wait for room any more. Raft can stop after it.
func (h *Health) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.closing:
	default:
		close(h.closing)
	}
}

// close waits for the calls that run, and lets no more begin.
func (h *Health) close() {
	h.release()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.calls.Wait()
}
