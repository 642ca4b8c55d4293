package exchange

import (
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/membership/memory"
	"github.com/ententehq/entente/routing/registry"
)

const (
	// LivenessSection is the name under which [Liveness] is registered with the membership.
	LivenessSection = "imports"
	// confirmEvery is how often a member reports that imports are confirmed.
	confirmEvery = 2 * time.Second
	// confirmSlack is how old a confirmation may be that revives imports: two reports may be lost.
	confirmSlack = 3*confirmEvery + registry.HeartbeatSlack
	// maxConfirmations bounds the domains of one report. There are no more imports.
	maxConfirmations = maxImports
)

// Liveness knows when the imports from each trust domain were last confirmed by a stream. It is a section of the
// leader's memory: each member reports the imports that its streams confirm with its heartbeats. A new leader starts
// with an empty memory, and counts the imports from a domain as confirmed when it first sees them, so that they have a
// whole ttl of grace after a change of leader.
type Liveness struct {
	*memory.Section[string, time.Time]
	now func() time.Time
	// confirmed returns the trust domains whose imports are confirmed by a stream of this member.
	confirmed func() []string

	mu sync.Mutex
	// counted is when the imports from each domain were last confirmed as far as it counts.
	counted map[string]time.Time
	grace   registry.Grace
}

func newLiveness(c Config, all *syncs) *Liveness {
	l := &Liveness{now: c.Now, counted: make(map[string]time.Time)}
	l.confirmed = func() (domains []string) {
		for _, s := range all.list() {
			domains = append(domains, s.confirmedDomains()...)
		}
		return domains
	}
	l.Section = memory.New(memory.Config[string, time.Time]{
		Name: LivenessSection, Encode: l.encode, Decode: l.decode, Now: c.Now, MaxReceived: 2 * maxImports,
		Reset: l.forget,
		Merge: func(was time.Time, known bool, is time.Time) (time.Time, bool) {
			if known && was.After(is) {
				return was, true
			}
			return is, true
		},
		Refused: func(member string, err error) {
			c.Logger.Warn("a report of confirmed imports is refused", "member", member, "error", err)
		},
	})
	return l
}

// Collect implements membership.Section. A confirmation that lasts is reported again every confirmEvery.
func (l *Liveness) Collect(full bool) []byte {
	now := l.now()
	confirmed := make(map[string]bool)
	for _, domain := range l.confirmed() {
		confirmed[domain] = true
		l.Own.Update(domain, func(at *time.Time) bool {
			if age := now.Sub(*at); !full && age >= 0 && age < confirmEvery {
				return false
			}
			*at = now
			return true
		})
	}
	l.Own.DeleteFunc(func(domain string, _ time.Time) bool { return !confirmed[domain] })
	return l.Section.Collect(full)
}

func (l *Liveness) encode(r memory.Report[string, time.Time]) ([]byte, error) {
	now := l.now()
	report := &statev1.ImportReport{}
	for _, e := range r.Entries {
		report.Confirmations = append(report.Confirmations, &statev1.ImportConfirmation{
			TrustDomain: e.Key, Age: durationpb.New(max(0, now.Sub(e.Value))),
		})
	}
	return proto.Marshal(report)
}

func (l *Liveness) decode(_ string, encoded []byte) (r memory.Report[string, time.Time], err error) {
	var report statev1.ImportReport
	if err := proto.Unmarshal(encoded, &report); err != nil {
		return r, err
	}
	if n := len(report.GetConfirmations()); n > maxConfirmations {
		return r, fmt.Errorf("it has %d domains; %d are allowed", n, maxConfirmations)
	}
	now := l.now()
	for _, c := range report.GetConfirmations() {
		if age := c.GetAge().AsDuration(); age >= 0 && age < MaxImportTTL {
			r.Entries = append(
				r.Entries,
				memory.Entry[string, time.Time]{Key: c.GetTrustDomain(), Value: now.Add(-age)},
			)
		}
	}
	return r, nil
}

// forget empties what the leader derived from reports.
func (l *Liveness) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.counted)
	l.grace = registry.Grace{}
}

// due returns the domains whose imports were not confirmed for ttl, and those whose imports were expired and are
// confirmed again. expired has all domains from which something is imported, and whether their imports are expired now.
func (l *Liveness) due(expired map[string]bool, ttl time.Duration) (expire, revive []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	away := l.grace.Check(now)
	counted := make(map[string]time.Time, len(expired))
	for domain, is := range expired {
		at := registry.LastReport(l.counted, domain, away, now)
		reported, ok := l.Received.Get(domain)
		if reported.After(at) && !reported.After(now) {
			at = reported
		}
		counted[domain] = at
		switch {
		case !is && now.Sub(at) > ttl+registry.HeartbeatSlack:
			expire = append(expire, domain)
		case is && ok && now.Sub(reported) <= confirmSlack:
			revive = append(revive, domain)
		}
	}
	l.Received.DeleteFunc(func(domain string, _ time.Time) bool {
		_, imported := expired[domain]
		return !imported
	})
	l.counted = counted
	return expire, revive
}
