package federation

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

const (
	// maxMapInterests bounds the domains of this cluster's for which one peer takes its map: it needs one.
	maxMapInterests = 16
	// mapChangesBytes and mapChangesDomains bound one message with what a hub says, mapChangesTogether how many are sent before what else there
	// is to send.
	mapChangesBytes, mapChangesDomains, mapChangesTogether = 128 << 10, 256, 4
	// A peer is brought no more of a map than it takes in: half of what it may be sent at all, and a quarter at once.
	mapRate, mapBurst = byteRate / 2, byteBurst / 4
	// mapAgain is when what had to wait for that is looked at again.
	mapAgain = 250 * time.Millisecond
)

// mapServing is the hub's side of one stream: it tells the peer of what it takes from this cluster's map.
type mapServing struct {
	mu   sync.Mutex
	pace *rate.Limiter
	// interests bounds how often the peer says anew what it takes; it is set when the stream joins, and nil: it does not matter.
	interests *rate.Limiter
	sides     map[string]*mapSide // by the domain with which the peer has its relationship
}

// mapSide is one interest of the peer's.
type mapSide struct {
	rules *Hub
	// has is what the peer has, until all parts of its interest have come.
	has map[string]version
	// pending are the domains of which it is to be told, told says that it knows of all before number.
	pending []string
	number  uint64
	told    bool
	ready   bool
	beat    time.Time
}

func newMapServing() *mapServing {
	return &mapServing{pace: rate.NewLimiter(mapRate, mapBurst), sides: map[string]*mapSide{}}
}

// serves reports whether the peer takes anything.
func (s *mapServing) serves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sides) > 0
}

// take takes in an interest, or a part of one. An error ends the stream.
func (s *mapServing) take(m *ententev1.PeerMapInterest, log *mapLog, now time.Time) error {
	hub, err := bundle.ParseTrustDomain(m.GetTrustDomain())
	if err != nil {
		return violation("malformed", "the peer takes the map of %s, which is no trust domain", quote(m.GetTrustDomain()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	side := s.sides[hub.Name()]
	if side == nil || side.ready || len(m.GetTake()) > 0 { // only the first part says what is taken
		if len(m.GetTake()) == 0 {
			delete(s.sides, hub.Name())
			return nil
		}
		if s.interests != nil && !s.interests.AllowN(now, 1) {
			return violation("flood", "the peer says anew what it takes of the map more often than %d times a second", interestRate)
		}
		if side == nil && len(s.sides) == maxMapInterests {
			return violation("too_many_domains", "the peer takes the map by %d relationships; %d are the most", len(s.sides)+1, maxMapInterests)
		}
		rules, err := parseHub(&statev1.RelationshipHub{Take: m.GetTake(), Except: m.GetExcept()})
		if err != nil {
			return violation("malformed", "the peer takes of the map what cannot be read: %s", clip(err.Error()))
		}
		side = &mapSide{rules: rules, has: map[string]version{}}
		s.sides[hub.Name()] = side
	}
	n := len(m.GetHas())
	for _, other := range s.sides { // of all that are not whole yet, so that a peer cannot begin many
		n += len(other.has)
	}
	if n > bundle.MaxMapDomains {
		return violation("too_many_domains", "the peer has %d domains of the map; %d are the most", n, bundle.MaxMapDomains)
	}
	for _, named := range m.GetHas() {
		td, v, err := parseVersion(named)
		if err != nil {
			return err
		}
		side.has[td] = v
	}
	if m.GetMore() {
		return nil
	}
	side.pending, side.number = log.differing(func(td string) bool { return td != hub.Name() && side.rules.Covers(td) }, side.has)
	side.has, side.ready = nil, true
	return nil
}

// next returns what is to be sent now, and when to ask again although nothing changes; 0: not before. entry is what stands in the map.
func (s *mapServing) next(now time.Time, every time.Duration, log *mapLog, entry func(td string) []byte) (out []*ententev1.PeerMessage, again time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hub, side := range s.sides {
		if !side.ready {
			continue
		}
		names, number, ok := log.after(side.number)
		if !ok {
			return nil, 0, violation("lagging", "the peer is too far behind the changes of the map; it is told what it lacks when it comes back")
		}
		side.number = number
		waiting := make(map[string]bool)
		if len(names) > 0 {
			for _, td := range side.pending {
				waiting[td] = true
			}
		}
		for _, td := range names {
			if td != hub && side.rules.Covers(td) && !waiting[td] { // what waits is told as it is when its turn comes
				side.pending, side.told = append(side.pending, td), false
			}
		}
		for range mapChangesTogether {
			if len(side.pending) == 0 && side.told && now.Before(side.beat) {
				break
			}
			if len(side.pending) > 0 && s.pace.TokensAt(now) < mapChangesBytes {
				again = mapAgain
				break
			}
			changes, size := side.changes(hub, entry)
			s.pace.ReserveN(now, min(size, mapBurst)) // a large document goes into debt
			if changes.Complete {
				side.told, side.beat = true, now.Add(every/2) // so that it comes with each heartbeat
			}
			out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapChanges{MapChanges: changes}})
		}
		if len(side.pending) > 0 && again == 0 {
			again = time.Millisecond // what else there is to send goes first
		}
	}
	return out, again, nil
}

// changes takes as much of what is pending as one message holds.
func (s *mapSide) changes(hub string, entry func(td string) []byte) (m *ententev1.PeerMapChanges, size int) {
	m = &ententev1.PeerMapChanges{TrustDomain: hub}
	n := 0
	for ; n < len(s.pending) && n < mapChangesDomains; n++ {
		td := s.pending[n]
		document := entry(td)
		if n > 0 && size+len(document) > mapChangesBytes {
			break // a large one goes by itself
		}
		size += len(td) + len(document) + 16
		if document == nil {
			m.Withdrawn = append(m.Withdrawn, td)
			continue
		}
		m.Bundles = append(m.Bundles, &ententev1.PeerBundle{TrustDomain: td, Document: document})
	}
	if s.pending = s.pending[n:]; len(s.pending) == 0 {
		s.pending, m.Complete = nil, true
	}
	return m, size
}
