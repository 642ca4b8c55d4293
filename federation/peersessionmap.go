package federation

import (
	"maps"
	"slices"
	"strings"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// maxVersionsTogether is how many versions one part of a map interest names, of some 70 bytes each.
	maxVersionsTogether = 4000
	// mapWindow is how many messages that name domains a hub may have outstanding for one interest.
	mapWindow = 2
	// mapConfirmedFor is how long a hub's statement that its map was sent completely is valid.
	mapConfirmedFor = 3 * longestBeat
	// mapChangesDomains bounds the domains that a hub puts into one message.
	mapChangesDomains = 256
)

// mapAsked is how a hub's map was asked for: by which generation of its relationship, and under which number. held are the messages that came
// for it and are not taken in.
type mapAsked struct {
	generation, number uint64
	held               int
}

// nextMapInterests tells the peer what is taken from its map, when that has changed.
func (s *session) nextMapInterests(w peerWorld) (out []*ententev1.PeerMessage) {
	send := func(m *ententev1.PeerMapInterest) {
		m.Number = s.mapNumber
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapInterest{MapInterest: m}})
	}
	for _, hub := range slices.Sorted(maps.Keys(s.mapAsked)) {
		if _, ok := w.plan.hubs[hub]; !ok {
			delete(s.mapAsked, hub)
			delete(s.confirmed, hub+relationship.MapSuffix)
			s.mapNumber++
			send(&ententev1.PeerMapInterest{TrustDomain: hub})
		}
	}
	for _, hub := range slices.Sorted(maps.Keys(w.plan.hubs)) {
		rel := w.plan.hubs[hub]
		if asked, ok := s.mapAsked[hub]; ok && asked.generation == rel.Generation {
			continue
		}
		s.mapNumber++
		s.mapAsked[hub] = mapAsked{generation: rel.Generation, number: s.mapNumber}
		delete(s.confirmed, hub+relationship.MapSuffix)
		m := &ententev1.PeerMapInterest{TrustDomain: hub, Take: rel.Hub.Take, Except: rel.Hub.Except}
		words := w.words(hub)
		for _, td := range slices.Sorted(maps.Keys(words)) {
			if len(m.Has) == maxVersionsTogether {
				m.More = true
				send(m)
				m = &ententev1.PeerMapInterest{TrustDomain: hub}
			}
			m.Has = append(m.Has, words[td].Message(td))
		}
		send(m)
	}
	return out
}

// namedBy is how many domains a message of a hub's names. One that names none only says that all was told.
func namedBy(m *ententev1.PeerMapChanges) int { return len(m.GetBundles()) + len(m.GetWithdrawn()) }

// takeMapChanges looks at the form of what a hub says. What answers an interest that has changed since is passed over.
func (s *session) takeMapChanges(m *ententev1.PeerMapChanges, w peerWorld) (taken, error) {
	hub := m.GetTrustDomain()
	asked, ok := s.mapAsked[hub]
	if _, planned := w.plan.hubs[hub]; !planned || !ok || m.GetInterest() != asked.number {
		return taken{}, nil
	}
	if n := namedBy(m); n > 2*mapChangesDomains {
		return taken{}, violation("too_many_domains", "the peer tells of %d domains of its map at once; %d are the most", n, 2*mapChangesDomains)
	} else if n > 0 {
		if asked.held++; asked.held > mapWindow {
			return taken{}, violation("flood", "the peer tells of its map faster than it is taken in: %d messages wait, and %d are the most", asked.held, mapWindow)
		}
		s.mapAsked[hub] = asked
	}
	return taken{mapChanges: m}, nil
}

// tookMapChanges says what a message means now that it is stored. It reports whether it answers what is asked for now, and by which generation of the
// relationship that was.
func (s *session) tookMapChanges(m *ententev1.PeerMapChanges, now time.Time) (generation uint64, current bool) {
	hub := m.GetTrustDomain()
	asked, ok := s.mapAsked[hub]
	if !ok || m.GetInterest() != asked.number {
		return 0, false // the interest has changed meanwhile, and the hub begins anew
	}
	if namedBy(m) > 0 {
		asked.held--
		s.mapAsked[hub] = asked
		s.mapTaken = append(s.mapTaken, &ententev1.PeerMapTaken{TrustDomain: hub, Interest: asked.number})
	}
	if m.GetComplete() {
		s.confirmed[hub+relationship.MapSuffix] = now
	}
	return asked.generation, true
}

// forgetOldMaps has a map count as kept up to date only while the hub says so.
func (s *session) forgetOldMaps(now time.Time) {
	maps.DeleteFunc(s.confirmed, func(name string, at time.Time) bool {
		isMap := strings.HasSuffix(name, relationship.MapSuffix)
		return !isMap || now.Sub(at) > mapConfirmedFor
	})
}
