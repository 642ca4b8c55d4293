package federation

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

const (
	// mapQueue is how many messages of hubs wait on a stream.
	mapQueue = session.MapWindow * maxMapInterests
)

// reasonMap ends a stream on which a hub says what its map could not say.
const reasonMap = "refused_map"

// queuedMap is a message of a hub that waits to be stored, and what of the peer's budget it holds.
type queuedMap struct {
	changes *ententev1.PeerMapChanges
	bytes   int64
}

// queueMap has what a hub says stored beside what else the stream brings, which does not wait for it. An error ends the stream.
func (s *stream) queueMap(m *ententev1.PeerMapChanges) error {
	q := queuedMap{changes: m}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mapsOver {
		return context.Cause(s.ctx)
	}
	if session.DomainsNamed(m) > 0 {
		if q.bytes = int64(proto.Size(m)); !s.pace.held.TryAcquire(q.bytes) {
			return session.Errorf("flood", "what the peer tells of its map, over all its streams, waits with more than %d bytes", maxHeld)
		}
	}
	select {
	case s.maps <- q:
		return nil
	default:
		s.pace.held.Release(q.bytes)
	}
	if q.bytes > 0 {
		return session.Errorf("flood", "the peer tells of its map faster than it is taken in: %d messages wait", mapQueue)
	}
	return nil // it only says that all was told, and comes again
}

// takeMaps stores what hubs say, in its order.
func (s *stream) takeMaps() {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mapsOver = true
		for len(s.maps) > 0 {
			s.pace.held.Release((<-s.maps).bytes)
		}
	}()
	for {
		select {
		case <-s.ctx.Done():
			return
		case q := <-s.maps:
			err := s.takeMap(q.changes)
			s.pace.held.Release(q.bytes)
			if err != nil {
				s.cancel(err)
				return
			}
		}
	}
}

// takeMap stores what one message of a hub says, and has the hub told so. An error ends the stream.
func (s *stream) takeMap(m *ententev1.PeerMapChanges) error {
	if n := len(m.GetBundles()); n > 0 {
		if err := s.pace.words.WaitN(s.ctx, n); err != nil {
			return err
		}
	}
	if session.DomainsNamed(m) > 0 {
		if err := s.pace.inTurn(s.ctx, func() error { return s.peers.manager.takeMapChanges(s.ctx, s.session.Home, m) }); err != nil {
			return err
		}
	}
	now := s.peers.manager.now()
	s.mu.Lock()
	generation, current := s.session.MapStored(m, now)
	s.mu.Unlock()
	if current && m.GetComplete() {
		s.peers.manager.confirmMap(m.GetTrustDomain(), generation)
		s.peers.noted(s.session.Home)
	}
	s.signal()
	return nil
}

// takeMapChanges judges what a hub says over a stream as if it stood in the map that it serves, and stores what is taken. An error
// ends the stream.
func (m *Manager) takeMapChanges(ctx context.Context, home string, changes *ententev1.PeerMapChanges) error {
	hub := changes.GetTrustDomain()
	for range attempts {
		view := m.config.Store.View()
		b, err := m.basisOf(view, hub)
		if errors.Is(err, relationship.ErrEnded) || err == nil && (b.Rel.Hub == nil || b.Rel.Peer == nil || b.Rel.Peer.Home.Name() != home) {
			return nil // nothing is taken any more
		}
		var r *reading
		if err == nil {
			r, err = m.readChanges(view, hub, b.Rel.Hub, changes)
		}
		if err == nil {
			err = m.writeMap(ctx, r, b)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err() // it has ended for another reason
		case errors.Is(err, relationship.ErrSuperseded):
			continue
		case err == nil:
			if m.tookMap(ctx, r, home) == nil {
				return nil
			}
			return m.unstored(hub)
		}
		result, failure := relationship.ReasonOf(err), relationship.Clip(err.Error())
		m.metrics.maps.WithLabelValues(result).Inc()
		m.log.Warn("what a hub says over its stream was not taken; what was taken from it before is kept", "hub", hub, "result", result, "error", failure)
		if relationship.IsDecision(result) {
			m.intake.Record(actionRefuseMap, hub, result, failure, 0)
			return session.Errorf(reasonMap, "what %s says of its map is refused: %s", hub, failure)
		}
		break
	}
	return m.unstored(hub)
}

// unstored ends a stream on which a hub said what cannot be written now. It says it again on the next.
func (m *Manager) unstored(hub string) error {
	return session.Errorf("not_stored", "%s cannot store what %s says at the moment", m.config.Peers.Home.Name(), hub)
}

// readChanges reads the part of a map that a hub has told, against a state.
func (m *Manager) readChanges(view *raftstore.View, hub string, rules *relationship.Hub, changes *ententev1.PeerMapChanges) (*reading, error) {
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

// tookMap says what came of it. A hub says what is refused as often as it likes, and the log has it at the pace of one peer.
func (m *Manager) tookMap(ctx context.Context, r *reading, home string) error {
	result := relationship.ResultStored
	if len(r.changes) == 0 {
		result = relationship.ResultUnchanged
	}
	m.metrics.maps.WithLabelValues(result).Inc()
	return r.tell(ctx, r.count.Refused > 0 && m.peers.tells(home))
}

// confirmMap counts a hub's word that all was told as a reading of its map, often enough to keep it fresh and not at each one. It says nothing of
// what an operator has decided since it was asked for.
func (m *Manager) confirmMap(hub string, generation uint64) {
	e, ok := m.catalog.Get(hub)
	if !ok || e.Rel.Hub == nil || e.PeerHome() == "" || e.Rel.Generation != generation {
		return
	}
	now := m.now()
	if m.confirmations.due(hub+relationship.MapSuffix, now, m.intake.Interval(e.Holding)/relationship.StaleAfter) {
		m.observations.Attempted(hub+relationship.MapSuffix, e.Rel.Generation, now, true, relationship.ResultConfirmed, "")
	}
}

// wordsBy are the versions of what is stored by a hub's word.
func (m *Manager) wordsBy(hub string) map[string]relationship.Version {
	words := map[string]relationship.Version{}
	m.catalog.EachAttestation(func(_ string, w mirror.AttestationHolding, rel *relationship.Relationship) {
		if w.Hub == hub && rel != nil && rel.Created.Equal(w.Agreed) {
			words[w.TrustDomain] = w.Version
		}
	})
	return words
}
