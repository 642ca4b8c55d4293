package membership

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// lead is the leader's memory: what it has heard in this term.
type lead struct {
	term  uint64
	since time.Time

	mu    sync.Mutex
	beats map[string]beat
}

// beat is the last heartbeat of a member. What was heard when is measured by the process's steady clock, whatever
// becomes of the clock on the wall.
type beat struct {
	at      time.Time
	read    reading
	offset  time.Duration // the member's clock minus the leader's, then
	applied raftstore.Revision
}

func (l *lead) all() map[string]beat {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.beats)
}

func (l *lead) note(id string, b beat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beats[id] = b
}

func (m *Manager) currentLead() *lead {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lead
}

const (
	leaderTick = 200 * time.Millisecond
	// leaderTimeout bounds one change that the leader makes by itself; it tries again at its next tick.
	leaderTimeout = 5 * time.Second
)

// leading does the leader's work while this member leads.
func (m *Manager) leading(ctx context.Context) {
	for _, s := range m.sections {
		s.Reset()
	}
	l := &lead{term: m.Store.Term(), since: time.Now(), beats: make(map[string]beat)}
	m.setLead(l)
	defer m.setLead(nil)
	defer m.metrics.alive.Set(0)
	tick := time.NewTicker(leaderTick)
	defer tick.Stop()
	var reached raftstore.Revision // what this member had applied a tick ago
	for {
		now := m.Store.View()
		if err := m.reconcile(ctx, l, now, reached); err != nil && ctx.Err() == nil {
			m.Logger.Warn("the leader could not bring the membership up to date, and tries again", "error", err)
		}
		reached = now.Revision()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *Manager) setLead(l *lead) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lead = l
}

// hears says who is heard, at a moment: this member itself, and who sent a heartbeat not long ago.
func (m *Manager) hears(l *lead) func(id string) bool {
	beats, now := l.all(), time.Now()
	return func(id string) bool {
		b, ok := beats[id]
		return id == m.Self.ID || ok && now.Sub(b.at) < m.AliveTimeout
	}
}

// settled says whether everybody has had the time to be heard since the lead began.
func (m *Manager) settled(l *lead) bool { return time.Since(l.since) >= m.AliveTimeout }

// reconcile brings what the leader writes in line with what it hears.
func (m *Manager) reconcile(ctx context.Context, l *lead, v *raftstore.View, reached raftstore.Revision) error {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	rows, err := Members.List(v, "")
	if err != nil {
		return err
	}
	servers := m.Store.Servers().List()
	m.judgeOwnClock(l, servers)
	if len(rows) > 0 {
		lowest := uint32(raftstore.CommandVersion)
		for _, row := range rows {
			lowest = min(lowest, row.Value.GetCommandVersion())
		}
		m.Store.AllowCommandVersion(lowest)
	}
	if err := m.mark(ctx, l, v, rows); err != nil {
		return err
	}
	return m.promote(ctx, l, servers, reached)
}

// mark writes who is alive, if that has changed.
func (m *Manager) mark(ctx context.Context, l *lead, v *raftstore.View, rows []raftstore.Row[*statev1.Member]) error {
	var members []string
	for _, row := range rows {
		members = append(members, row.Key)
	}
	marked, err := Alive(v)
	if err != nil {
		return err
	}
	on, off := marks(members, marked, m.hears(l), m.settled(l))
	m.metrics.alive.Set(float64(len(marked)))
	if len(on)+len(off) == 0 {
		return nil
	}
	_, err = m.Store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, id := range on {
			// The row may have been struck out since: then there is nobody to be marked.
			if _, found, err := Members.Get(tx, id); err != nil || !found {
				return err
			}
			if err := alive.Put(tx, id, &statev1.AliveMember{Since: timestamppb.New(m.Now())}); err != nil {
				return err
			}
		}
		for _, id := range off {
			if err := alive.Delete(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		m.Logger.Info("members came or went", "alive", on, "not_alive", off)
	}
	return err
}

// promote gives the vote to members without one that have caught up with what the leader had applied a
// tick ago.
func (m *Manager) promote(ctx context.Context, l *lead, servers []raftstore.Server, reached raftstore.Revision) error {
	beats, hears := l.all(), m.hears(l)
	for _, s := range servers {
		if s.Voter || !hears(s.MemberID) || reached == 0 || beats[s.MemberID].applied < reached {
			continue
		}
		if !m.changing.TryLock() {
			return nil // somebody is being added or removed
		}
		err := m.Store.Servers().AddVoter(ctx, s)
		m.changing.Unlock()
		if err != nil {
			return err
		}
		m.Logger.Info("the member has caught up and has a vote now", "member", s.MemberID)
	}
	return nil
}

// judgeOwnClock compares the leader's own clock with those that it was told.
func (m *Manager) judgeOwnClock(l *lead, servers []raftstore.Server) {
	distance, known := m.distance(l, servers, m.Self.ID)
	if known || m.settled(l) {
		m.judgeClock(clockVerdict{known: known, distance: distance}, 0)
	}
}

// distance is how far a member's clock is from a majority's, as the leader knows it.
func (m *Manager) distance(l *lead, servers []raftstore.Server, id string) (time.Duration, bool) {
	beats, hears := l.all(), m.hears(l)
	offsets := map[string]time.Duration{m.Self.ID: 0}
	now := readClocks()
	voters := 0
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		voters++
		if b, ok := beats[s.MemberID]; ok && hears(s.MemberID) {
			offsets[s.MemberID] = b.offsetNow(now)
		}
	}
	if _, ok := offsets[id]; !ok { // without a vote: its clock is compared, and does not count
		b, heard := beats[id]
		if !heard || len(offsets) < majority(voters) {
			return 0, false
		}
		offsets[id] = b.offsetNow(now)
		return clockDistance(offsets, id, voters+1)
	}
	return clockDistance(offsets, id, voters)
}
