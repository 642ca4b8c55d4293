package session

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
	// MapWindow is how many messages that name domains a hub may have outstanding for one interest.
	MapWindow = 2
	// MapConfirmedFor is how long a hub's statement that its map was sent completely is valid.
	MapConfirmedFor = 3 * LongestHeartbeat
	// MapChangesDomains bounds the domains that a hub puts into one message.
	MapChangesDomains = 256
)

// mapAsked is how a hub's map was asked for: by which generation of its relationship, and under which number. held are the messages that came
// for it and are not taken in.
type mapAsked struct {
	generation, number uint64
	held               int
}

// nextMapSubscriptions tells the peer what is taken from its map, when that has changed.
func (s *Session) nextMapSubscriptions(w World) (out []*ententev1.PeerMessage) {
	send := func(m *ententev1.PeerMapSubscription) {
		m.Number = s.mapNumber
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapSubscription{MapSubscription: m}})
	}
	for _, hub := range slices.Sorted(maps.Keys(s.mapAsked)) {
		if _, ok := w.Plan.Hubs[hub]; !ok {
			delete(s.mapAsked, hub)
			delete(s.Confirmed, hub+relationship.MapSuffix)
			s.mapNumber++
			send(&ententev1.PeerMapSubscription{TrustDomain: hub})
		}
	}
	for _, hub := range slices.Sorted(maps.Keys(w.Plan.Hubs)) {
		rel := w.Plan.Hubs[hub]
		if asked, ok := s.mapAsked[hub]; ok && asked.generation == rel.Generation {
			continue
		}
		s.mapNumber++
		s.mapAsked[hub] = mapAsked{generation: rel.Generation, number: s.mapNumber}
		delete(s.Confirmed, hub+relationship.MapSuffix)
		m := &ententev1.PeerMapSubscription{TrustDomain: hub, Include: rel.Hub.Include, Exclude: rel.Hub.Exclude}
		words := w.Attested(hub)
		for _, td := range slices.Sorted(maps.Keys(words)) {
			if len(m.Has) == maxVersionsTogether {
				m.More = true
				send(m)
				m = &ententev1.PeerMapSubscription{TrustDomain: hub}
			}
			m.Has = append(m.Has, words[td].Message(td))
		}
		send(m)
	}
	return out
}

// DomainsNamed is how many domains a message of a hub's names. One that names none only says that all was told.
func DomainsNamed(m *ententev1.PeerMapChanges) int {
	return len(m.GetBundles()) + len(m.GetWithdrawn())
}

// receiveMapChanges looks at the form of what a hub says. What answers an interest that has changed since is passed over.
func (s *Session) receiveMapChanges(m *ententev1.PeerMapChanges, w World) (Received, error) {
	hub := m.GetTrustDomain()
	asked, ok := s.mapAsked[hub]
	if _, planned := w.Plan.Hubs[hub]; !planned || !ok || m.GetSubscription() != asked.number {
		return Received{}, nil
	}
	if n := DomainsNamed(m); n > 2*MapChangesDomains {
		return Received{}, Errorf("too_many_domains", "the peer tells of %d domains of its map at once; %d are the most", n, 2*MapChangesDomains)
	} else if n > 0 {
		if asked.held++; asked.held > MapWindow {
			return Received{}, Errorf("flood", "the peer tells of its map faster than it is taken in: %d messages wait, and %d are the most", asked.held, MapWindow)
		}
		s.mapAsked[hub] = asked
	}
	return Received{MapChanges: m}, nil
}

// MapStored says what a message means now that it is stored. It reports whether it answers what is asked for now, and by which generation of the
// relationship that was.
func (s *Session) MapStored(m *ententev1.PeerMapChanges, now time.Time) (generation uint64, current bool) {
	hub := m.GetTrustDomain()
	asked, ok := s.mapAsked[hub]
	if !ok || m.GetSubscription() != asked.number {
		return 0, false // the interest has changed meanwhile, and the hub begins anew
	}
	if DomainsNamed(m) > 0 {
		asked.held--
		s.mapAsked[hub] = asked
		s.mapStored = append(s.mapStored, &ententev1.PeerMapAcknowledgement{TrustDomain: hub, Subscription: asked.number})
	}
	if m.GetComplete() {
		s.Confirmed[hub+relationship.MapSuffix] = now
	}
	return asked.generation, true
}

// expireMaps has a map count as kept up to date only while the hub says so.
func (s *Session) expireMaps(now time.Time) {
	maps.DeleteFunc(s.Confirmed, func(name string, at time.Time) bool {
		isMap := strings.HasSuffix(name, relationship.MapSuffix)
		return !isMap || now.Sub(at) > MapConfirmedFor
	})
}
