package registry

import (
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memory"
)

const (
	// LeaseSection is the name under which the [Tracker] is registered with the membership.
	LeaseSection = "leases"
	// maxRenewals bounds the report of a member. It is above the greatest number of leases.
	maxRenewals = 1 << 17
)

// Tracker knows when leases were last renewed. It is a section of the leader's memory: each member reports the renewals
// that it took with its heartbeats, and the leader compares them with the table of leases. A new leader starts with an
// empty memory, and counts every lease as renewed when it first sees it, so that each has one whole ttl of grace after
// a change of leader.
type Tracker struct {
	*memory.Section[string, renewal]
	now func() time.Time

	mu sync.Mutex
	// renewed is when each held lease was last renewed as far as it counts; expired is since when each lease that has
	// run out was seen so.
	renewed, expired map[string]time.Time
	grace            Grace
}

// renewal is the last renewal of a lease. The leader does not receive the ttl.
type renewal struct {
	at  time.Time
	ttl time.Duration
}

// trackedLease is a lease as stored in the table.
type trackedLease struct {
	id                string
	ttl, removalDelay time.Duration
	expired           bool
	revision          raftstore.Revision
}

func newTracker(c Config) *Tracker {
	t := &Tracker{now: c.Now, renewed: make(map[string]time.Time), expired: make(map[string]time.Time)}
	t.Section = memory.New(memory.Config[string, renewal]{
		Name: LeaseSection, Encode: t.encode, Decode: t.decode, Now: c.Now,
		Merge: func(was renewal, known bool, is renewal) (renewal, bool) {
			if known && was.at.After(is.at) {
				return was, true
			}
			return is, true
		},
		Reset: t.forget,
		Refused: func(member string, err error) {
			c.Logger.Warn("a report of renewals is refused", "member", member, "error", err)
		},
	})
	return t
}

// renew records a renewal that this member took.
func (t *Tracker) renew(lease string, ttl time.Duration) { t.Own.Set(lease, renewal{t.now(), ttl}) }

// Collect implements membership.Section. Renewals that no longer hold a lease are not reported.
func (t *Tracker) Collect(full bool) []byte {
	now := t.now()
	t.Own.DeleteFunc(func(_ string, r renewal) bool { return now.Sub(r.at) > r.ttl+HeartbeatSlack })
	return t.Section.Collect(full)
}

func (t *Tracker) encode(report memory.Report[string, renewal]) ([]byte, error) {
	now := t.now()
	m := &statev1.LeaseReport{}
	for _, e := range report.Entries {
		m.Renewals = append(
			m.Renewals,
			&statev1.Renewal{Lease: e.Key, Age: durationpb.New(max(0, now.Sub(e.Value.at)))},
		)
	}
	return proto.Marshal(m)
}

func (t *Tracker) decode(_ string, encoded []byte) (report memory.Report[string, renewal], err error) {
	var m statev1.LeaseReport
	if err := proto.Unmarshal(encoded, &m); err != nil {
		return report, err
	}
	if n := len(m.GetRenewals()); n > maxRenewals {
		return report, fmt.Errorf("a report of %d renewals; %d are allowed", n, maxRenewals)
	}
	now := t.now()
	for _, r := range m.GetRenewals() {
		age := r.GetAge().AsDuration()
		if len(r.GetLease()) != 2*leaseIDSize || age < 0 || age > MaxTTL+HeartbeatSlack {
			continue
		}
		report.Entries = append(report.Entries, memory.Entry[string, renewal]{
			Key: r.GetLease(), Value: renewal{at: now.Add(-age)},
		})
	}
	return report, nil
}

// forget empties what the leader derived from reports.
func (t *Tracker) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.renewed)
	clear(t.expired)
	t.grace = Grace{}
}

// due returns the leases that were not renewed in time, and those that ran out so long ago that their instances are to
// be deleted. It forgets leases that are not in the table.
func (t *Tracker) due(table []trackedLease) (expiring, gone []trackedLease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	away := t.grace.Check(now)
	renewed, expired := make(map[string]time.Time, len(table)), make(map[string]time.Time)
	for _, l := range table {
		if l.expired {
			expired[l.id] = LastReport(t.expired, l.id, away, now)
			if now.Sub(expired[l.id]) >= l.removalDelay {
				gone = append(gone, l)
			}
			continue
		}
		at := LastReport(t.renewed, l.id, away, now)
		if reported, ok := t.Received.Get(l.id); ok && reported.at.After(at) && !reported.at.After(now) {
			at = reported.at
		}
		renewed[l.id] = at
		if now.Sub(at) > l.ttl+HeartbeatSlack {
			expiring = append(expiring, l)
		}
	}
	t.renewed, t.expired = renewed, expired
	t.Received.DeleteFunc(func(id string, _ renewal) bool { return renewed[id].IsZero() })
	return expiring, gone
}

// HeartbeatSlack is how much longer than its ttl the leader waits for a renewal: a renewal travels with the next
// heartbeat, and if that is lost, with the one after it.
const HeartbeatSlack = 3 * time.Second

// Grace measures silence for a leader that judges leases and imports by the reports that it receives. It discounts the
// time in which the leader itself did not run, for example because its host was suspended: no report could be received
// then. The zero value is ready.
type Grace struct{ last time.Time }

// Check starts a check at a point in time, and returns for how long the leader did not run before it.
func (g *Grace) Check(now time.Time) (away time.Duration) {
	if gap := now.Sub(g.last); !g.last.IsZero() && gap > HeartbeatSlack {
		away = gap
	}
	g.last = now
	return away
}

// LastReport returns since when there has been no report of name, given the times known from the previous check. A name
// that is new, or whose time is in the future because the clock was set back, counts as reported now.
func LastReport(known map[string]time.Time, name string, away time.Duration, now time.Time) time.Time {
	at, ok := known[name]
	if at = at.Add(away); !ok || at.After(now) {
		return now
	}
	return at
}
