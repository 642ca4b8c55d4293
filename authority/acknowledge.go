package authority

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// Acknowledgements knows what peers have acknowledged. It is asked by the loop that activates authorities and by whoever lists
// them, and answers within seconds.
type Acknowledgements interface {
	// Acknowledged returns all peers that have, or had, a stream and want the bundle of a hosted domain. complete is false while
	// not all of them can be known, as right after a change of leader: then nobody must be taken for nothing.
	Acknowledged(ctx context.Context, td string) (peers []plan.PeerStanding, complete bool, err error)
}

// peersOf asks what peers know of a domain's bundle, if a prepared authority depends on it: of this member's own one that is
// otherwise ready, or of any if all is set.
func (m *Manager) peersOf(ctx context.Context, td string, s plan.Situation, all bool) *plan.Peers {
	if m.config.Acknowledgements == nil {
		return nil
	}
	needed := false
	for _, a := range s.Authorities {
		needed = needed || a.State == plan.Prepared && a.Published > 0 && (all || a.Member == s.Member && !s.Now.Before(a.Ready))
	}
	if !needed {
		return nil
	}
	standings, complete, err := m.config.Acknowledgements.Acknowledged(ctx, td)
	if err != nil {
		m.log.Debug("cannot tell what peers have acknowledged", "trust_domain", td, "error", err)
		return &plan.Peers{}
	}
	return &plan.Peers{Standings: standings, Complete: complete}
}

// unacknowledgedMessages are the peers that may not know an authority, as the API shows them.
func unacknowledgedMessages(s plan.Situation, a plan.Authority) (messages []*ententev1.UnacknowledgedPeer) {
	if a.State != plan.Prepared {
		return nil
	}
	for _, p := range s.Unacknowledged(a) {
		messages = append(messages, &ententev1.UnacknowledgedPeer{
			HomeTrustDomain: p.Peer, Sequence: p.Sequence, Refusal: p.Refusal, Connected: p.Connected, For: durationpb.New(s.Now.Sub(a.PublishedAt)),
		})
	}
	return messages
}

// published writes down with authorities that were just prepared from which sequence on the bundle holds what verifies them.
func published(tx *raftstore.Tx, td string, carried []done) error {
	for _, d := range carried {
		if d.Do != plan.Prepare || d.Sequence == 0 {
			continue
		}
		row, ok, err := table.Authorities.Get(tx, table.AuthorityKey(td, d.ID))
		if err != nil || !ok {
			return err
		}
		if d.inherits {
			continue
		}
		row.Value.PublishSequence = d.Sequence
		if err := table.Authorities.Put(tx, table.AuthorityKey(td, d.ID), row.Value); err != nil {
			return err
		}
	}
	return nil
}
