package routing

import (
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	// leaseSlack is how long after its end a lease is still held: a renewal travels with the next heartbeat, and when
	// that is lost, with the one after it.
	leaseSlack = 3 * time.Second
	// maxRenewals bounds what one report of a member can hold; it is above the number of leases there can be.
	maxRenewals = 1 << 17
)

// renewals is a member's memory of the leases that were renewed through it. Nothing of it is replicated: it goes to the
// leader with the heartbeats, and to a new leader whole.
type renewals struct {
	mu    sync.Mutex
	taken map[string]renewal
	// fresh holds what was renewed since the last report.
	fresh map[string]bool
}

type renewal struct {
	at  time.Time
	ttl time.Duration
}

func newRenewals() *renewals {
	return &renewals{taken: make(map[string]renewal), fresh: make(map[string]bool)}
}

func (r *renewals) renew(lease string, ttl time.Duration, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken[lease] = renewal{at: now, ttl: ttl}
	r.fresh[lease] = true
}

// report returns what changed since the last one, or all that still holds.
func (r *renewals) report(full bool, now time.Time) *statev1.LeaseReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &statev1.LeaseReport{}
	for lease, taken := range r.taken {
		age := now.Sub(taken.at)
		if age > taken.ttl+leaseSlack {
			delete(r.taken, lease)
			continue
		}
		if !full && !r.fresh[lease] {
			continue
		}
		out.Renewals = append(out.Renewals, &statev1.Renewal{Lease: lease, Age: durationpb.New(max(0, age))})
	}
	clear(r.fresh)
	return out
}

// held is a lease as the table has it.
type held struct {
	lease          string
	ttl, goneAfter time.Duration
	// lapsed: it has run out already.
	lapsed bool
	// revision is that of the row.
	revision raftstore.Revision
}

// ledger is the leader's memory of when each lease was last renewed. A new leader begins with an empty one, and what it
// meets for the first time counts as renewed then: after a change of leader each lease has one whole ttl of grace.
type ledger struct {
	mu      sync.Mutex
	renewed map[string]time.Time
	// lapsed is since when each lease that has run out was seen so.
	lapsed map[string]time.Time
	grace  grace
}

func newLedger() *ledger {
	return &ledger{renewed: make(map[string]time.Time), lapsed: make(map[string]time.Time)}
}

func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.renewed)
	clear(l.lapsed)
	l.grace = grace{}
}

func (l *ledger) deliver(report *statev1.LeaseReport, now time.Time) error {
	if len(report.GetRenewals()) > maxRenewals {
		return fmt.Errorf("a report of %d renewals; %d are allowed", len(report.GetRenewals()), maxRenewals)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range report.GetRenewals() {
		age := r.GetAge().AsDuration()
		if len(r.GetLease()) != 2*leaseIDSize || age < 0 || age > MaxTTL+leaseSlack {
			continue
		}
		lease, at := r.GetLease(), now.Add(-age)
		if at.After(l.renewed[lease]) {
			l.renewed[lease] = at
		}
	}
	return nil
}

// due returns the leases that nobody renewed in time, and those that ran out so long ago that their instances are to go. It
// forgets what is no longer in the table.
func (l *ledger) due(table []held, now time.Time) (lapse, gone []held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	away := l.grace.look(now)
	renewed, lapsed := make(map[string]time.Time, len(table)), make(map[string]time.Time)
	for _, h := range table {
		if h.lapsed {
			lapsed[h.lease] = since(l.lapsed, h.lease, away, now)
			if now.Sub(lapsed[h.lease]) >= h.goneAfter {
				gone = append(gone, h)
			}
			continue
		}
		renewed[h.lease] = since(l.renewed, h.lease, away, now)
		if now.Sub(renewed[h.lease]) > h.ttl+leaseSlack {
			lapse = append(lapse, h)
		}
	}
	l.renewed, l.lapsed = renewed, lapsed
	return lapse, gone
}

// LeaseSection carries renewals to the leader with the heartbeats of the members: register it with the membership as
// "leases". Manager.Leases makes it.
type LeaseSection struct {
	renewals *renewals
	ledger   *ledger
	now      func() time.Time
	refused  func(member string, err error)
}

// Collect returns what this member has to tell the leader; nil: nothing.
func (s *LeaseSection) Collect(full bool) []byte {
	report := s.renewals.report(full, s.now())
	if len(report.GetRenewals()) == 0 {
		return nil
	}
	b, err := proto.Marshal(report)
	if err != nil {
		s.refused("", fmt.Errorf("encode the report of renewals: %w", err))
		return nil
	}
	return b
}

// Deliver takes a member's report, on the leader.
func (s *LeaseSection) Deliver(member string, report []byte) {
	var m statev1.LeaseReport
	err := proto.Unmarshal(report, &m)
	if err == nil {
		err = s.ledger.deliver(&m, s.now())
	}
	if err != nil {
		s.refused(member, err)
	}
}

// Answer refuses: nobody asks for renewals.
func (s *LeaseSection) Answer([]byte) ([]byte, error) {
	return nil, fmt.Errorf("leases answer no queries")
}

// Reset forgets what an earlier term of this leader knew.
func (s *LeaseSection) Reset() { s.ledger.reset() }
