package membership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/membership/removal"
)

// leaderPoll is how often a member checks whether another one leads: a new leader gets a heartbeat at once.
const leaderPoll = 100 * time.Millisecond

// target is the leader that heartbeats are sent to.
type target struct {
	leader string
	term   uint64
}

// heartbeats sends the heartbeats of this member, with the reports of its rooms, to the leader.
type heartbeats struct {
	store    *raftstore.Store
	conns    Conns
	self     memberid.Self
	every    time.Duration
	now      func() time.Time
	log      hclog.Logger
	metrics  *metrics
	clock    *clockJudge
	diverged *divergence
	sections *sections
	leader   *leader
	// disk returns why the disk of this member accepts no writes, or nil.
	disk   func() error
	health leaderHealth
	lag    lag

	mu      sync.Mutex
	contact time.Time
	// led is the member other than this one that led last, and contactLed the last contact to it.
	led        string
	contactLed time.Time
	recorded   time.Time // the last contact that is on disk
}

// run sends heartbeats until ctx ends: regularly, to a new leader at once, and when the disk of this member begins or
// ceases to accept writes. It also ends once this member has applied its removal, which the last heartbeat reports.
func (h *heartbeats) run(ctx context.Context) {
	incarnation := rand.Uint64()
	var complete, tried target // complete: the leader that has all of this member's reports so far
	var due time.Time
	writable := true // by the last heartbeat
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	for {
		able := h.disk() == nil
		to, ok := h.target()
		if row, found, err := Members.Get(h.store.View(), h.self.ID); err == nil && found &&
			row.Value.GetRemoveTime() != nil && string(row.Value.GetIdentity()) == string(h.self.Identity[:]) {
			if ok {
				h.beat(ctx, to, false, incarnation)
			}
			raftstore.IntegrityOf(h.store).Remove(removal.Applied(row.Value))
			return
		}
		if ok && (to != tried || able != writable || !time.Now().Before(due)) {
			writable = able
			full := complete != to
			complete, tried = target{}, to
			due = time.Now().Add(jittered(h.every))
			if h.beat(ctx, to, full, incarnation) {
				complete = to
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}

func (h *heartbeats) target() (target, bool) {
	leader, ok := h.store.Leader()
	if !ok || leader.MemberID == h.self.ID && !h.store.IsLeader() {
		return target{}, false
	}
	return target{leader: leader.MemberID, term: h.store.Term()}, true
}

// jittered prevents members that started together from sending their heartbeats together.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

func (h *heartbeats) logFailure(to target, err error) {
	if strings.Contains(err.Error(), "bad certificate") {
		h.log.Error("the leader does not recognize this member's identity key: if the member was removed, "+
			"it can return with an empty data folder and a new join token", "leader", to.leader, "error", err)
		return
	}
	h.log.Debug("the leader did not accept the heartbeat", "leader", to.leader, "term", to.term, "error", err)
}

// beat does one heartbeat, and reports whether the leader has it. The contact counts from before: this member may have
// been paused between the answer and now.
func (h *heartbeats) beat(ctx context.Context, to target, full bool, incarnation uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, max(h.every, 2*leaderPoll))
	defer cancel()
	began := h.now()
	var err error
	if to.leader == h.self.ID {
		err = h.deliver(ctx, to, full)
	} else {
		err = h.send(ctx, to, full, incarnation)
	}
	if err != nil {
		h.metrics.heartbeats.WithLabelValues("failed").Inc()
		h.logFailure(to, err)
		return false
	}
	h.metrics.heartbeats.WithLabelValues("ok").Inc()
	h.recordContact(to.leader, began)
	return true
}

// deliver delivers this member's own reports, if it leads. It proves that: a leader that was paused leads until it
// learns of another one, and has no contact with a majority.
func (h *heartbeats) deliver(ctx context.Context, to target, full bool) error {
	if _, err := h.store.Read(ctx, raftstore.ReadOptions{Linearizable: true}); err != nil {
		return err
	}
	if term, leads := h.leader.currentTerm(); !leads || term != to.term {
		return raftstore.ErrNotLeader
	}
	h.sections.deliver(h.self.ID, h.sections.collect(full))
	return nil
}

// send sends one heartbeat to another member.
func (h *heartbeats) send(ctx context.Context, to target, full bool, incarnation uint64) error {
	conn, err := h.conns.Conn(to.leader)
	if err != nil {
		return err
	}
	sent := h.now()
	answer, err := ententev1.NewMemberServiceClient(conn).Heartbeat(ctx, &ententev1.HeartbeatRequest{
		Id:              h.self.ID,
		Incarnation:     incarnation,
		Clock:           timestamppb.New(sent),
		Version:         h.self.Version,
		CommandVersion:  raftstore.CommandVersion,
		Term:            to.term,
		Sections:        h.sections.collect(full),
		AppliedRevision: uint64(h.store.View().Revision()),
		DiskMedian:      durationpb.New(h.store.Disk().Median()),
		CannotWrite:     h.disk() != nil,
		ElectionTimeout: durationpb.New(h.store.ElectionTimeout()),
		Digests:         h.diverged.own(),
	})
	if err != nil {
		return err
	}
	if answer.GetTerm() != to.term {
		return fmt.Errorf("member %s answered for term %d, not %d", to.leader, answer.GetTerm(), to.term)
	}
	h.health.set(to, sent, answer.GetCannotCommit())
	h.lag.observe(raftstore.Revision(answer.GetAppliedRevision()), h.store.View().Revision(), time.Now())
	h.diverged.judge(ctx, answer.GetDigests())
	received := h.now()
	middle := sent.Add(received.Sub(sent) / 2)
	offset := middle.Round(0).Sub(answer.GetClock().AsTime())
	if d := answer.GetClockDistance(); d != nil {
		h.clock.judge(clockVerdict{known: true, distance: d.AsDuration()}, offset)
	} else {
		h.metrics.clockOffset.Set(offset.Seconds())
	}
	return nil
}

// recordEvery is how often a contact is recorded on disk. A restarted member signs by it for that much less.
const recordEvery = 30 * time.Second

func (h *heartbeats) recordContact(leader string, at time.Time) {
	h.mu.Lock()
	h.contact = at
	if leader != h.self.ID {
		h.led, h.contactLed = leader, at
	}
	due := h.clock.sane() && at.Sub(h.recorded).Abs() >= recordEvery
	if due {
		h.recorded = at
	}
	h.mu.Unlock()
	if !due {
		return
	}
	if err := h.store.Serving().RecordContact(at); err != nil {
		h.log.Debug("cannot record the contact with the leader", "error", err)
	}
}

// obstacle returns why the leader cannot commit because of disks, as far as this member knows, or "".
func (h *heartbeats) obstacle() string {
	switch to, ok := h.target(); {
	case !ok:
		return ""
	case to.leader == h.self.ID:
		return h.leader.obstacle()
	default:
		return h.health.get(to)
	}
}

// maxLag is how far behind the leader, in time, a member may be that is ready to write. A write through it is committed
// by the others and answered once the member has applied it, so that its callers wait for that long and longer.
const maxLag = 2 * time.Second

// maxMarks bounds the revisions that lag remembers: those of a minute of heartbeats.
const maxMarks = 64

// lag measures how far this member is behind the leader: it remembers which revision the leader had applied when it
// answered a heartbeat, until this member has applied that too.
type lag struct {
	mu    sync.Mutex
	marks []mark // in the order of their revisions
}

type mark struct {
	revision raftstore.Revision
	at       time.Time // by the monotonic clock
}

// observe records what the leader has applied, and forgets what this member, which is at a revision, has applied too.
func (l *lag) observe(leader, applied raftstore.Revision, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(applied)
	if n := len(l.marks); n == maxMarks || n > 0 && leader <= l.marks[n-1].revision {
		return
	}
	l.marks = append(l.marks, mark{leader, at})
}

// of returns how long ago the leader had applied what a member at this revision has not, and the newest such revision
// that is known. It is 0 if there is none.
func (l *lag) of(applied raftstore.Revision, now time.Time) (time.Duration, raftstore.Revision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(applied)
	if len(l.marks) == 0 {
		return 0, 0
	}
	return now.Sub(l.marks[0].at), l.marks[len(l.marks)-1].revision
}

func (l *lag) forget(applied raftstore.Revision) {
	l.marks = slices.DeleteFunc(l.marks, func(m mark) bool { return m.revision <= applied })
}

// behind returns an error while this member is more than maxLag behind the leader.
func (h *heartbeats) behind() error {
	applied := h.store.View().Revision()
	late, leader := h.lag.of(applied, time.Now())
	if late <= maxLag {
		return nil
	}
	return fmt.Errorf("this member is at revision %d and %s behind the leader, which is at %d or later: see its disk, "+
		"and use another member until it has caught up", applied, late.Round(100*time.Millisecond), leader)
}

// lastOther returns which member other than this one led last, and when it last answered; "" if none has since this
// process started.
func (h *heartbeats) lastOther() (id string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.led, h.contactLed
}

// lastContact returns when the leader last answered; zero: not since this process started.
func (h *heartbeats) lastContact() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.contact
}
