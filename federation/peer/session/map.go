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
	// mapConfirmedFor is how long the confirmation that a map was sent completely is valid.
	mapConfirmedFor = 3 * LongestHeartbeat
	// MapChangesDomains bounds the domains that a hub puts into one message.
	MapChangesDomains = 256
)

// mapSubscription is the subscription to a hub's map: the generation of the relationship that it is for, its number,
// and how many messages for it were received and are not stored yet.
type mapSubscription struct {
	generation, number uint64
	held               int
}

// nextMapSubscriptions subscribes to the maps of hubs, after the relationships with them have changed.
func (s *Session) nextMapSubscriptions(w World) (out []*ententev1.PeerMessage) {
	send := func(m *ententev1.PeerMapSubscription) {
		m.Number = s.mapNumber
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapSubscription{MapSubscription: m}})
	}
	for _, hub := range slices.Sorted(maps.Keys(s.mapSubscriptions)) {
		if _, ok := w.Plan.Hubs[hub]; !ok {
			delete(s.mapSubscriptions, hub)
			delete(s.Confirmed, hub+relationship.MapSuffix)
			s.mapNumber++
			send(&ententev1.PeerMapSubscription{TrustDomain: hub})
		}
	}
	for _, hub := range slices.Sorted(maps.Keys(w.Plan.Hubs)) {
		rel := w.Plan.Hubs[hub]
		if asked, ok := s.mapSubscriptions[hub]; ok && asked.generation == rel.Generation {
			continue
		}
		s.mapNumber++
		s.mapSubscriptions[hub] = mapSubscription{generation: rel.Generation, number: s.mapNumber}
		delete(s.Confirmed, hub+relationship.MapSuffix)
		m := &ententev1.PeerMapSubscription{TrustDomain: hub, Include: rel.Hub.Include, Exclude: rel.Hub.Exclude}
		attested := w.Attested(hub)
		for _, td := range slices.Sorted(maps.Keys(attested)) {
			if len(m.Has) == maxVersionsTogether {
				m.More = true
				send(m)
				m = &ententev1.PeerMapSubscription{TrustDomain: hub}
			}
			m.Has = append(m.Has, attested[td].Message(td))
		}
		send(m)
	}
	return out
}

// DomainsNamed returns the number of domains in a message with map changes. A message without any only confirms that
// the map was sent completely.
func DomainsNamed(m *ententev1.PeerMapChanges) int {
	return len(m.GetBundles()) + len(m.GetWithdrawn())
}

// receiveMapChanges checks the form of map changes. Those for a subscription that was replaced are ignored.
func (s *Session) receiveMapChanges(m *ententev1.PeerMapChanges, w World) (Received, error) {
	hub := m.GetTrustDomain()
	asked, ok := s.mapSubscriptions[hub]
	if _, planned := w.Plan.Hubs[hub]; !planned || !ok || m.GetSubscription() != asked.number {
		return Received{}, nil
	}
	if n := DomainsNamed(m); n > 2*MapChangesDomains {
		return Received{}, Errorf(
			"too_many_domains",
			"the peer sent map changes of %d domains at once; %d are the most",
			n,
			2*MapChangesDomains,
		)
	} else if n > 0 {
		if asked.held++; asked.held > MapWindow {
			return Received{}, Errorf("flood",
				"the peer sends its map faster than it is stored: %d messages wait, and %d are the most",
				asked.held, MapWindow)
		}
		s.mapSubscriptions[hub] = asked
	}
	return Received{MapChanges: m}, nil
}

// MapStored schedules the acknowledgement of map changes that were stored. current is false if the subscription was
// replaced meanwhile; generation is that of the relationship that it is for.
func (s *Session) MapStored(m *ententev1.PeerMapChanges, now time.Time) (generation uint64, current bool) {
	hub := m.GetTrustDomain()
	asked, ok := s.mapSubscriptions[hub]
	if !ok || m.GetSubscription() != asked.number {
		return 0, false // the hub sends the map again for the new subscription
	}
	if DomainsNamed(m) > 0 {
		asked.held--
		s.mapSubscriptions[hub] = asked
		s.mapStored = append(
			s.mapStored,
			&ententev1.PeerMapAcknowledgement{TrustDomain: hub, Subscription: asked.number},
		)
	}
	if m.GetComplete() {
		s.Confirmed[hub+relationship.MapSuffix] = now
	}
	return asked.generation, true
}

// expireMaps removes the confirmations of maps that the hub has not repeated.
func (s *Session) expireMaps(now time.Time) {
	maps.DeleteFunc(s.Confirmed, func(name string, at time.Time) bool {
		isMap := strings.HasSuffix(name, relationship.MapSuffix)
		return !isMap || now.Sub(at) > mapConfirmedFor
	})
}
