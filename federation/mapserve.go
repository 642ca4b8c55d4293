package federation

import (
	"sync"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// maxMapInterests bounds the domains of this cluster's for which one peer takes its map: it needs one.
	maxMapInterests = 16
	// mapChangesBytes bounds one message with changes of the map.
	mapChangesBytes = 128 << 10
	// A peer is brought no more of a map than it takes in: half of what it may be sent at all, and a quarter at once.
	mapRate, mapBurst = byteRate / 2, byteBurst / 4
	// mapAgain is when what had to wait for that is looked at again.
	mapAgain = 250 * time.Millisecond
)

// mapServing is the hub's side of one stream: it tells the peer of what it takes from this cluster's map.
type mapServing struct {
	mu    sync.Mutex
	sides map[string]*mapSide // by the domain with which the peer has its relationship
	// newest is the number of the peer's last interest, over is set when the stream is.
	newest uint64
	over   bool
}

// mapSide is one interest of the peer's.
type mapSide struct {
	interest uint64
	rules    *relationship.Hub
	// has is what the peer has, until all parts of its interest have come; held is what that, and then what is pending of it, takes of
	// the peer's budget.
	has  map[string]relationship.Version
	held int64
	// pending are the domains of which it is to be told, told says that it knows of all before number.
	pending []string
	number  uint64
	told    bool
	ready   bool
	beat    time.Time
	// underWay are the messages that the peer has not taken in, since when at least one is.
	underWay int
	since    time.Time
}

// heldPerDomain is what a domain takes in memory besides its name.
const heldPerDomain = 128

func newMapServing() *mapServing { return &mapServing{sides: map[string]*mapSide{}} }

// serves reports whether the peer takes anything.
func (s *mapServing) serves() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sides) > 0
}

// end lets go of everything: the stream is over.
func (s *mapServing) end(pace *peerPace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for hub := range s.sides {
		s.drop(hub, pace)
	}
}

// drop forgets an interest, if there is one. s.mu is held.
func (s *mapServing) drop(hub string, pace *peerPace) {
	if side := s.sides[hub]; side != nil {
		pace.held.Release(side.held)
		delete(s.sides, hub)
	}
}

// take takes in an interest, or a part of one. An error ends the stream.
func (s *mapServing) take(m *ententev1.PeerMapInterest, pace *peerPace, log *mapLog, now time.Time) error {
	td, err := bundle.ParseTrustDomain(m.GetTrustDomain())
	if err != nil {
		return session.Errorf("malformed", "the peer takes the map of %s, which is no trust domain", relationship.Quote(m.GetTrustDomain()))
	}
	hub := td.Name()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil // the stream has its reason already
	}
	side := s.sides[hub]
	switch n := m.GetNumber(); {
	case n > s.newest:
		if side, err = s.begin(hub, m, pace, now); side == nil {
			return err
		}
	case side == nil || side.interest != n || side.ready || len(m.GetTake())+len(m.GetExcept()) > 0:
		return session.Errorf("malformed", "the peer says what it takes of the map of %s under number %d, after %d", hub, n, s.newest)
	}
	if err := side.add(m.GetHas(), pace); err != nil || m.GetMore() {
		return err
	}
	side.pending, side.number = log.differing(func(td string) bool { return td != hub && side.rules.Covers(td) }, side.has)
	side.has, side.ready = nil, true
	pace.held.Release(side.held)
	if side.held = heldBy(side.pending); !pace.held.TryAcquire(side.held) {
		side.held = 0
		return tooMuchHeld()
	}
	return nil
}

// begin puts a new interest in the place of what the peer took before; nil: it takes nothing any more. s.mu is held.
func (s *mapServing) begin(hub string, m *ententev1.PeerMapInterest, pace *peerPace, now time.Time) (*mapSide, error) {
	if !pace.interests.AllowN(now, 1) {
		return nil, session.Errorf("flood", "the peer says anew what it takes of the map more often than %d times a second", interestRate)
	}
	s.newest = m.GetNumber()
	s.drop(hub, pace)
	if len(m.GetTake()) == 0 {
		return nil, nil
	}
	if len(s.sides) == maxMapInterests {
		return nil, session.Errorf("too_many_domains", "the peer takes the map by %d relationships; %d are the most", len(s.sides)+1, maxMapInterests)
	}
	rules, err := relationship.ParseHub(&statev1.RelationshipHub{Take: m.GetTake(), Except: m.GetExcept()})
	if err != nil {
		return nil, session.Errorf("malformed", "the peer takes of the map what cannot be read: %s", relationship.Clip(err.Error()))
	}
	side := &mapSide{interest: m.GetNumber(), rules: rules, has: map[string]relationship.Version{}}
	s.sides[hub] = side
	return side, nil
}

// add takes in what the peer has.
func (s *mapSide) add(has []*ententev1.PeerBundleVersion, pace *peerPace) error {
	if n := len(s.has) + len(has); n > bundle.MaxMapDomains {
		return session.Errorf("too_many_domains", "the peer has %d domains of the map; %d are the most", n, bundle.MaxMapDomains)
	}
	for _, named := range has {
		td, v, err := session.ParseVersion(named)
		if err != nil {
			return err
		}
		if _, again := s.has[td]; !again {
			held := int64(len(td) + heldPerDomain)
			if !pace.held.TryAcquire(held) {
				return tooMuchHeld()
			}
			s.held += held
		}
		s.has[td] = v
	}
	return nil
}

// tooMuchHeld ends a stream by which a peer has this member hold too much.
func tooMuchHeld() error {
	return session.Errorf("too_many_domains", "what the peer has of the map, over all its streams, takes more than %d bytes", maxHeld)
}

func heldBy(names []string) (n int64) {
	for _, td := range names {
		n += heldByName(td)
	}
	return n
}

// heldByName is what a name takes that waits to be told.
func heldByName(td string) int64 { return int64(len(td) + 16) }

// taken takes in that the peer has taken in a message. An error ends the stream.
func (s *mapServing) taken(m *ententev1.PeerMapTaken, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	side := s.sides[m.GetTrustDomain()]
	switch {
	case side == nil || side.interest != m.GetInterest():
		return nil // it takes others since
	case side.underWay == 0:
		return session.Errorf("malformed", "the peer says that it has taken in what it was not told of the map of %s", m.GetTrustDomain())
	}
	side.underWay--
	side.since = now
	return nil
}

// next returns what is to be sent now, and when to ask again although nothing changes and the peer says nothing; 0: not before. entry is what
// stands in the map.
func (s *mapServing) next(now time.Time, every time.Duration, pace *peerPace, log *mapLog, entry func(td string) []byte) (out []*ententev1.PeerMessage, again time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hub, side := range s.sides {
		if !side.ready {
			continue
		}
		if err := side.follow(hub, now, pace, log); err != nil {
			return nil, 0, err
		}
		told, soon := side.tell(hub, now, every, pace, entry)
		if out = append(out, told...); soon > 0 && (again == 0 || soon < again) {
			again = soon
		}
	}
	return out, again, nil
}

// follow takes in what has changed in the map since it last did. An error ends the stream.
func (s *mapSide) follow(hub string, now time.Time, pace *peerPace, log *mapLog) error {
	names, number, ok := log.after(s.number)
	if !ok {
		return session.Errorf("lagging", "the peer is too far behind the changes of the map; it is told what it lacks when it comes back")
	}
	s.number = number
	if s.underWay > 0 && now.Sub(s.since) > session.AcknowledgeTimeout {
		return session.Errorf("unacknowledged", "the peer did not take in what it was told of the map of %s within %s", hub, session.AcknowledgeTimeout)
	}
	if len(names) == 0 {
		return nil
	}
	waiting := make(map[string]bool, len(s.pending))
	for _, td := range s.pending {
		waiting[td] = true
	}
	more := int64(0)
	for _, td := range names {
		if td != hub && s.rules.Covers(td) && !waiting[td] { // what waits is told as it is when its turn comes
			s.pending, s.told = append(s.pending, td), false
			more += heldByName(td)
		}
	}
	if !pace.held.TryAcquire(more) {
		return session.Errorf("lagging", "more of the map changes than the peer takes in; it is told what it lacks when it comes back")
	}
	s.held += more
	return nil
}

// tell returns as much of what is pending as may be sent now, or that all was told where it is time to say so, and when to ask again.
func (s *mapSide) tell(hub string, now time.Time, every time.Duration, pace *peerPace, entry func(td string) []byte) (out []*ententev1.PeerMessage, again time.Duration) {
	for range session.MapWindow + 1 {
		switch {
		case len(s.pending) == 0 && s.told && now.Before(s.beat):
			return out, 0
		case len(s.pending) > 0 && s.underWay == session.MapWindow:
			return out, 0 // the peer says when it is ready for more
		case len(s.pending) > 0 && pace.told.TokensAt(now) < mapChangesBytes:
			return out, mapAgain
		}
		changes, size := s.changes(hub, entry)
		pace.told.ReserveN(now, min(size, mapBurst)) // a large document goes into debt
		if session.DomainsNamed(changes) > 0 {
			if s.underWay++; s.underWay == 1 {
				s.since = now
			}
		}
		if changes.Complete {
			s.told, s.beat = true, now.Add(every/2) // so that it comes with each heartbeat
			pace.held.Release(s.held)
			s.held = 0
		}
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapChanges{MapChanges: changes}})
	}
	return out, 0
}

// changes takes as much of what is pending as one message holds.
func (s *mapSide) changes(hub string, entry func(td string) []byte) (m *ententev1.PeerMapChanges, size int) {
	m = &ententev1.PeerMapChanges{TrustDomain: hub, Interest: s.interest}
	n := 0
	for ; n < len(s.pending) && n < session.MapChangesDomains; n++ {
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
