package routing

import (
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

const (
	// ImportSection is the name under which [ImportSightings] go with the heartbeats.
	ImportSection = "imports"
	// sightEvery is how often a member tells the leader of a stream that goes on.
	sightEvery = 2 * time.Second
	// sightSlack is how long a sighting may be under way: two reports may be lost.
	sightSlack = 3*sightEvery + leaseSlack
	// maxSightings bounds the domains of one report: there are no more imports.
	maxSightings = maxImports
)

// ImportSightings carries to the leader by which streams imports are confirmed, and what peers say of what is exported to them, with the heartbeats of the members. None of it is
// replicated: the leader writes down only that the imports from a domain expired, or are confirmed again. [Manager.Sightings] makes it.
type ImportSightings struct {
	now  func() time.Time
	seen func() []string
	// answers are those of one report, as far as there is room, or all if full.
	answers func(full bool) []*statev1.ExportAnswer
	ledger  *importLedger
	said    *answerLedger
	refused func(member string, err error)

	mu   sync.Mutex
	told map[string]time.Time
}

// Sightings is the section "imports" of the heartbeats between members.
func (m *Manager) Sightings() *ImportSightings {
	return &ImportSightings{
		now: m.now, ledger: m.sightings, said: m.answers, told: make(map[string]time.Time),
		answers: func(full bool) (out []*statev1.ExportAnswer) {
			for _, f := range m.carrying.list() {
				out = append(out, f.report(full, maxReportedAnswers-len(out))...)
			}
			return out
		},
		seen: func() []string {
			var out []string
			for _, f := range m.carrying.list() {
				out = append(out, f.seen()...)
			}
			return out
		},
		refused: func(member string, err error) {
			m.log.Warn("a report of streams that confirm imports is refused", "member", member, "error", err)
		},
	}
}

// Collect returns what this member has to tell the leader; nil: nothing.
func (s *ImportSightings) Collect(full bool) []byte {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	told := make(map[string]time.Time)
	report := &statev1.ImportReport{}
	for _, domain := range s.seen() {
		if _, twice := told[domain]; twice {
			continue
		}
		last, known := s.told[domain]
		if age := now.Sub(last); known && !full && age >= 0 && age < sightEvery {
			told[domain] = last
			continue
		}
		told[domain] = now
		report.Sightings = append(report.Sightings, &statev1.ImportSighting{TrustDomain: domain, Age: durationpb.New(0)})
	}
	s.told = told
	report.Answers = s.answers(full)
	if len(report.GetSightings())+len(report.GetAnswers()) == 0 {
		return nil
	}
	b, err := proto.Marshal(report)
	if err != nil {
		s.refused("", fmt.Errorf("encode the report: %w", err))
		return nil
	}
	return b
}

// Deliver takes a member's report, on the leader.
func (s *ImportSightings) Deliver(member string, report []byte) {
	var m statev1.ImportReport
	err := proto.Unmarshal(report, &m)
	if err == nil && len(m.GetSightings()) > maxSightings {
		err = fmt.Errorf("it has %d domains; %d are allowed", len(m.GetSightings()), maxSightings)
	}
	now := s.now()
	if err == nil {
		err = s.said.deliver(m.GetAnswers(), now)
	}
	if err != nil {
		s.refused(member, err)
		return
	}
	for _, seen := range m.GetSightings() {
		if age := seen.GetAge().AsDuration(); age >= 0 && age < MaxImportTTL {
			s.ledger.sight(seen.GetTrustDomain(), now.Add(-age))
		}
	}
}

// Answer tells, on the leader, what peers said of what is exported to them.
func (s *ImportSightings) Answer([]byte) ([]byte, error) { return s.said.tell(s.now()) }

// Reset forgets what an earlier term of this leader knew.
func (s *ImportSightings) Reset() {
	s.ledger.reset()
	s.said.reset()
}

// importLedger is the leader's memory of when the imports from each domain were last confirmed. A new leader begins with an empty
// one, and what it meets for the first time counts as confirmed then: after a change of leader all imports have one whole
// import_ttl of grace.
type importLedger struct {
	mu    sync.Mutex
	seen  map[string]time.Time // by sightings
	since map[string]time.Time // as it counts: at the latest when the domain was first met
	grace grace
}

func newImportLedger() *importLedger {
	return &importLedger{seen: make(map[string]time.Time), since: make(map[string]time.Time)}
}

func (l *importLedger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.seen)
	clear(l.since)
	l.grace = grace{}
}

func (l *importLedger) sight(domain string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.After(l.seen[domain]) && (len(l.seen) < 2*maxImports || !l.seen[domain].IsZero()) {
		l.seen[domain] = at
	}
}

// due returns the domains whose imports nobody has confirmed for ttl, and those that were expired and are confirmed again. expired
// has all domains that something is imported from, and whether their imports are expired now.
func (l *importLedger) due(expired map[string]bool, ttl time.Duration, now time.Time) (expire, revive []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	away := l.grace.look(now)
	counts := make(map[string]time.Time, len(expired))
	for domain, is := range expired {
		at := since(l.since, domain, away, now)
		if seen := l.seen[domain]; seen.After(at) && !seen.After(now) {
			at = seen
		}
		counts[domain] = at
		switch {
		case !is && now.Sub(at) > ttl+leaseSlack:
			expire = append(expire, domain)
		case is && !l.seen[domain].IsZero() && now.Sub(l.seen[domain]) <= sightSlack:
			revive = append(revive, domain)
		}
	}
	for domain := range l.seen {
		if _, imported := expired[domain]; !imported {
			delete(l.seen, domain)
		}
	}
	l.since = counts
	return expire, revive
}
