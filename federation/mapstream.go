package federation

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/hub"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// reasonMap ends a stream on which a hub sent what its map cannot contain.
const reasonMap = "refused_map"

// hubSide implements [peer.Hub].
type hubSide struct {
	*hub.Publisher
	manager *Manager
}

func (h hubSide) Attested(hub string) map[string]relationship.Version { return h.manager.wordsBy(hub) }

func (h hubSide) ReceiveChanges(ctx context.Context, home string, changes *ententev1.PeerMapChanges) error {
	return h.manager.takeMapChanges(ctx, home, changes)
}

func (h hubSide) ConfirmMap(hub string, generation uint64) { h.manager.confirmMap(hub, generation) }

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
	return r.tell(ctx, r.count.Refused > 0 && m.streams.LogAllowed(home))
}

// confirmMap counts a hub's word that all was told as a reading of its map, often enough to keep it fresh and not at each one. It says nothing of
// what an operator has decided since it was asked for.
func (m *Manager) confirmMap(hub string, generation uint64) {
	e, ok := m.catalog.Get(hub)
	if !ok || e.Rel.Hub == nil || e.PeerHome() == "" || e.Rel.Generation != generation {
		return
	}
	now := m.now()
	if m.receiver.confirmed.due(hub+relationship.MapSuffix, now, m.intake.Interval(e.Holding)/relationship.StaleAfter) {
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
