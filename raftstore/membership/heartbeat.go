package membership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
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
	sections *sections
	leader   *leader

	mu      sync.Mutex
	contact time.Time
}

// run sends heartbeats until ctx ends.
func (h *heartbeats) run(ctx context.Context) {
	incarnation := rand.Uint64()
	var complete, tried target // complete: the leader that has all of this member's reports so far
	var due time.Time
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	for {
		if to, ok := h.target(); ok && (to != tried || !time.Now().Before(due)) {
			full := complete != to
			complete, tried = target{}, to
			due = time.Now().Add(jittered(h.every))
			if err := h.send(ctx, to, full, incarnation); err != nil {
				h.metrics.heartbeats.WithLabelValues("failed").Inc()
				h.logFailure(to, err)
			} else {
				h.metrics.heartbeats.WithLabelValues("ok").Inc()
				complete = to
				h.recordContact()
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

// send sends one heartbeat, or delivers this member's own reports if it leads.
func (h *heartbeats) send(ctx context.Context, to target, full bool, incarnation uint64) error {
	if to.leader == h.self.ID {
		if term, leads := h.leader.currentTerm(); !leads || term != to.term {
			return raftstore.ErrNotLeader
		}
		h.sections.deliver(h.self.ID, h.sections.collect(full))
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(h.every, 2*leaderPoll))
	defer cancel()
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
	})
	if err != nil {
		return err
	}
	if answer.GetTerm() != to.term {
		return fmt.Errorf("member %s answered for term %d, not %d", to.leader, answer.GetTerm(), to.term)
	}
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

func (h *heartbeats) recordContact() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.contact = h.now()
}

// lastContact returns when the leader last answered; zero: not since this process started.
func (h *heartbeats) lastContact() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.contact
}
