package membership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// leaderPoll is how often a member looks whether another one leads, since a new leader is told at once.
const leaderPoll = 100 * time.Millisecond

// audience is the leader that reports are meant for.
type audience struct {
	leader string
	term   uint64
}

// beats tells the leader that this member lives, until ctx ends.
func (m *Manager) beats(ctx context.Context) {
	incarnation := rand.Uint64()
	var told, tried audience // told: who has everything of this member's reports so far
	var due time.Time
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	for {
		if to, ok := m.audience(); ok && (to != tried || !time.Now().Before(due)) {
			full := told != to
			told, tried = audience{}, to
			due = time.Now().Add(jittered(m.HeartbeatEvery))
			if err := m.beat(ctx, to, full, incarnation); err != nil {
				m.metrics.heartbeats.WithLabelValues("failed").Inc()
				m.logMissed(to, err)
			} else {
				m.metrics.heartbeats.WithLabelValues("ok").Inc()
				told = to
				m.heardNow()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}

func (m *Manager) audience() (audience, bool) {
	leader, ok := m.Store.Leader()
	if !ok || leader.MemberID == m.Self.ID && !m.Store.IsLeader() {
		return audience{}, false
	}
	return audience{leader: leader.MemberID, term: m.Store.Term()}, true
}

// jittered keeps members that started together from beating together.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

func (m *Manager) logMissed(to audience, err error) {
	if strings.Contains(err.Error(), "bad certificate") {
		m.Logger.Error("the leader does not know this member's identity key: if the member was removed, it can come back with an empty data folder and a new join token",
			"leader", to.leader, "error", err)
		return
	}
	m.Logger.Debug("the leader did not take the heartbeat", "leader", to.leader, "term", to.term, "error", err)
}

// beat sends one heartbeat, or takes this member's own reports in if it leads.
func (m *Manager) beat(ctx context.Context, to audience, full bool, incarnation uint64) error {
	if to.leader == m.Self.ID {
		l := m.currentLead()
		if l == nil || l.term != to.term {
			return raftstore.ErrNotLeader
		}
		m.deliver(m.Self.ID, m.collect(full))
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(m.HeartbeatEvery, 2*leaderPoll))
	defer cancel()
	conn, err := m.Conns.Conn(to.leader)
	if err != nil {
		return err
	}
	sent := m.Now()
	answer, err := ententev1.NewMemberServiceClient(conn).Heartbeat(ctx, &ententev1.HeartbeatRequest{
		Id:              m.Self.ID,
		Incarnation:     incarnation,
		Clock:           timestamppb.New(sent),
		Version:         m.Self.Version,
		CommandVersion:  raftstore.CommandVersion,
		Term:            to.term,
		Sections:        m.collect(full),
		AppliedRevision: uint64(m.Store.View().Revision()),
	})
	if err != nil {
		return err
	}
	if answer.GetTerm() != to.term {
		return fmt.Errorf("member %s answered for term %d, not %d", to.leader, answer.GetTerm(), to.term)
	}
	received := m.Now()
	middle := sent.Add(received.Sub(sent) / 2)
	offset := middle.Round(0).Sub(answer.GetClock().AsTime())
	if d := answer.GetClockDistance(); d != nil {
		m.judgeClock(clockVerdict{known: true, distance: d.AsDuration()}, offset)
	} else {
		m.metrics.clockOffset.Set(offset.Seconds())
	}
	return nil
}

// collect gathers what the rooms have to say.
func (m *Manager) collect(full bool) map[string][]byte {
	reports := make(map[string][]byte)
	for name, s := range m.sections {
		report := s.Collect(full)
		switch {
		case report == nil:
		case len(report) > maxSectionBytes:
			m.Logger.Error("a report is too large for a heartbeat and was left out", "section", name, "bytes", len(report), "limit", maxSectionBytes)
		default:
			reports[name] = report
		}
	}
	return reports
}

func (m *Manager) deliver(member string, reports map[string][]byte) {
	for name, report := range reports {
		if s := m.sections[name]; s != nil && len(report) <= maxSectionBytes {
			s.Deliver(member, report)
		}
	}
}

// announceEvery is how often a member looks whether what is stored of it is still true, and tries again.
const announceEvery = 2 * time.Second

// announce keeps this member's row as this process was configured, until ctx ends.
func (m *Manager) announce(ctx context.Context) {
	every := time.NewTicker(announceEvery)
	defer every.Stop()
	for {
		if err := m.announceOnce(ctx); err != nil && ctx.Err() == nil {
			m.Logger.Debug("this member's row could not be brought up to date", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}
