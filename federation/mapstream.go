package federation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

const (
	// mapHasTogether is how many versions one part of an interest names, of some 70 bytes each.
	mapHasTogether = 4000
	// mapQueue is how many messages of a hub wait to be stored before its stream is not read from.
	mapQueue = 4
	// mapConfirmed is for how long a hub's word that all was told holds.
	mapConfirmed = 3 * longestBeat
)

// reasonMap ends a stream on which a hub says what its map could not say.
const reasonMap = "refused_map"

// nextMapInterests tells the peer what is taken from its map, when that has changed.
func (s *session) nextMapInterests(w peerWorld) (out []*ententev1.PeerMessage) {
	send := func(m *ententev1.PeerMapInterest) {
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapInterest{MapInterest: m}})
	}
	for _, hub := range slices.Sorted(maps.Keys(s.mapAsked)) {
		if _, ok := w.plan.hubs[hub]; !ok {
			delete(s.mapAsked, hub)
			delete(s.confirmed, hub+mapSuffix)
			send(&ententev1.PeerMapInterest{TrustDomain: hub})
		}
	}
	for _, hub := range slices.Sorted(maps.Keys(w.plan.hubs)) {
		rel := w.plan.hubs[hub]
		if asked, ok := s.mapAsked[hub]; ok && asked == rel.Generation {
			continue
		}
		s.mapAsked[hub] = rel.Generation
		delete(s.confirmed, hub+mapSuffix)
		m := &ententev1.PeerMapInterest{TrustDomain: hub, Take: rel.Hub.take, Except: rel.Hub.except}
		words := w.words(hub)
		for _, td := range slices.Sorted(maps.Keys(words)) {
			if len(m.Has) == mapHasTogether {
				m.More = true
				send(m)
				m = &ententev1.PeerMapInterest{TrustDomain: hub}
			}
			m.Has = append(m.Has, words[td].message(td))
		}
		send(m)
	}
	return out
}

// takeMapChanges looks at the form of what a hub says.
func (s *session) takeMapChanges(m *ententev1.PeerMapChanges, w peerWorld) (taken, error) {
	hub := m.GetTrustDomain()
	if _, ok := w.plan.hubs[hub]; !ok {
		return taken{}, nil // it was on its way when the peer was told that nothing is taken any more
	}
	if n := len(m.GetBundles()) + len(m.GetWithdrawn()); n > 2*mapChangesDomains {
		return taken{}, violation("too_many_domains", "the peer tells of %d domains of its map at once; %d are the most", n, 2*mapChangesDomains)
	}
	return taken{mapChanges: m}, nil
}

// forgetOldMaps has a map count as kept up to date only while the hub says so.
func (s *session) forgetOldMaps(now time.Time) {
	maps.DeleteFunc(s.confirmed, func(name string, at time.Time) bool {
		_, isMap := hubOfObservation(name)
		return !isMap || now.Sub(at) > mapConfirmed
	})
}

// takeMaps stores what hubs say, in its order, beside the bundles that the stream brings.
func (s *stream) takeMaps() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case m := <-s.maps:
			if n := len(m.GetBundles()); n > 0 && s.words.WaitN(s.ctx, n) != nil {
				return // the stream ends, and has its reason already
			}
			if err := s.peers.manager.takeMapChanges(s.ctx, s.session.home, m); err != nil {
				s.cancel(err)
				return
			}
			if !m.GetComplete() {
				continue
			}
			s.mu.Lock()
			s.session.confirmed[m.GetTrustDomain()+mapSuffix] = s.peers.manager.now()
			s.mu.Unlock()
			s.peers.manager.confirmMap(m.GetTrustDomain())
			s.peers.noted(s.session.home)
		}
	}
}

// takeMapChanges judges what a hub says over a stream as if it stood in the map that it serves, and stores what is taken. An error
// ends the stream.
func (m *Manager) takeMapChanges(ctx context.Context, home string, changes *ententev1.PeerMapChanges) error {
	hub := changes.GetTrustDomain()
	if len(changes.GetBundles())+len(changes.GetWithdrawn()) == 0 {
		return nil
	}
	for range attempts {
		view := m.config.Store.View()
		b, err := m.basisOf(view, hub)
		if errors.Is(err, errEnded) || err == nil && (b.relationship.Hub == nil || b.relationship.Peer == nil || b.relationship.Peer.Home.Name() != home) {
			return nil // nothing is taken any more
		}
		var r *reading
		if err == nil {
			r, err = m.readChanges(view, hub, b.relationship.Hub, changes)
		}
		if err == nil {
			err = m.writeMap(ctx, r, b)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err() // it has ended for another reason
		case errors.Is(err, errSuperseded):
			continue
		case err == nil:
			if m.tookMap(ctx, r) == nil {
				return nil
			}
			return m.unstored(hub)
		}
		result, failure := reasonOf(err), clip(err.Error())
		m.metrics.maps.WithLabelValues(result).Inc()
		m.log.Warn("what a hub says over its stream was not taken; what was taken from it before is kept", "hub", hub, "result", result, "error", failure)
		if isDecision(result) {
			m.record(actionRefuseMap, hub, result, failure, 0)
			return violation(reasonMap, "what %s says of its map is refused: %s", hub, failure)
		}
		break
	}
	return m.unstored(hub)
}

// unstored ends a stream on which a hub said what cannot be written now. It says it again on the next.
func (m *Manager) unstored(hub string) error {
	return violation("not_stored", "%s cannot store what %s says at the moment", m.config.Peers.Home.Name(), hub)
}

// readChanges reads the part of a map that a hub has told, against a state.
func (m *Manager) readChanges(view *raftstore.View, hub string, rules *Hub, changes *ententev1.PeerMapChanges) (*reading, error) {
	var names []string
	for _, brought := range changes.GetBundles() {
		names = append(names, brought.GetTrustDomain())
	}
	names = append(names, changes.GetWithdrawn()...)
	domains := make([]spiffeid.TrustDomain, len(names))
	for i, name := range names {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return nil, err
		}
		if names[i] = td.Name(); slices.Contains(domains[:i], td) {
			return nil, fmt.Errorf("%w: %s", bundle.ErrDuplicateTrustDomain, td)
		}
		domains[i] = td
	}
	r, err := m.newReadingOf(view, hub, rules, names)
	if err != nil {
		return nil, err
	}
	for i, brought := range changes.GetBundles() {
		if err := r.see(domains[i], brought.GetDocument()); err != nil {
			return nil, err
		}
	}
	r.withdrawn() // of those that are named, what was not brought
	return r, nil
}

// tookMap says what came of it.
func (m *Manager) tookMap(ctx context.Context, r *reading) error {
	result := resultStored
	if len(r.changes) == 0 {
		result = resultUnchanged
	}
	m.metrics.maps.WithLabelValues(result).Inc()
	return r.tell(ctx)
}

// confirmMap counts a hub's word that all was told as a reading of its map, often enough to keep it fresh and not at each one.
func (m *Manager) confirmMap(hub string) {
	e, ok := m.catalog.get(hub)
	if !ok || e.relationship.Hub == nil || e.peerHome() == "" {
		return
	}
	now := m.now()
	if m.confirmations.due(hub+mapSuffix, now, m.interval(e.holding)/staleAfter) {
		m.observations.attempted(hub+mapSuffix, e.relationship.Generation, now, true, resultConfirmed, "")
	}
}

// wordsBy are the versions of what is stored by a hub's word.
func (m *Manager) wordsBy(hub string) map[string]version {
	words := map[string]version{}
	m.catalog.eachWord(func(_ string, w wordHolding, rel *Relationship) {
		if w.hub == hub && rel != nil && rel.Created.Equal(w.agreed) {
			words[w.td] = w.version
		}
	})
	return words
}
