package authority

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	// SilentHints is for how many refresh hints a peer without a stream is waited for: whoever is away for longer reads the bundle
	// before it relies on it, or counts it as stale.
	SilentHints = 6
	// acknowledgeCheck is how often peers are asked after while an authority waits for them.
	acknowledgeCheck = time.Second
)

// PeerStanding is what a cluster with which a stream is kept has acknowledged of a hosted domain's bundle.
type PeerStanding struct {
	// Peer names it, by its home trust domain.
	Peer string
	// Sequence is the last that it acknowledged, Refusal the named reason for which it refused a later one.
	Sequence uint64
	Refusal  string
	// Connected says whether a stream is open, and Silent for how long none was.
	Connected bool
	Silent    time.Duration
}

// Acknowledgements knows what peers have acknowledged. It is asked by the loop that activates authorities and by whoever lists
// them, and answers within seconds.
type Acknowledgements interface {
	// Acknowledged returns all peers that have, or had, a stream and want the bundle of a hosted domain. complete is false while
	// not all of them can be known, as right after a change of leader: then nobody must be taken for nothing.
	Acknowledged(ctx context.Context, td string) (peers []PeerStanding, complete bool, err error)
}

// Peers is what is known of the peers that want a domain's bundle.
type Peers struct {
	Standings []PeerStanding
	Complete  bool
}

// unacknowledged are the peers that may not know what verifies an authority.
func (s Situation) unacknowledged(a Authority) []PeerStanding {
	if s.Peers == nil || a.Published == 0 {
		return nil
	}
	var pending []PeerStanding
	for _, p := range s.Peers.Standings {
		if p.Sequence < a.Published && (p.Connected || p.Silent < SilentHints*s.Settings.RefreshHint) {
			pending = append(pending, p)
		}
	}
	return pending
}

// waitsForPeers says whether an authority that is otherwise ready has to wait for acknowledgements, or for word of them.
func (s Situation) waitsForPeers(a Authority) bool {
	return s.Peers != nil && a.Published > 0 && (!s.Peers.Complete || len(s.unacknowledged(a)) > 0)
}

// latest is until when an authority waits for peers at most: the last moment at which the one before it can sign SVIDs of full length, or
// where others sign instead, as long again as it was published before it was ready.
func (s Situation) latest(prepared Authority, predecessor *Authority) time.Time {
	if predecessor != nil {
		return predecessor.deadline()
	}
	return prepared.Ready.Add(HintsBeforeUse * s.Settings.RefreshHint)
}

// peersSentence says who has not acknowledged an authority; empty: nobody is waited for.
func (s Situation) peersSentence(a Authority) string {
	if s.Peers == nil || a.Published == 0 {
		return ""
	}
	var names []string
	for _, p := range s.unacknowledged(a) {
		switch {
		case p.Refusal != "":
			names = append(names, fmt.Sprintf("%s (refuses it: %s)", p.Peer, p.Refusal))
		case !p.Connected:
			names = append(names, fmt.Sprintf("%s (no stream for %v)", p.Peer, p.Silent.Round(time.Second)))
		default:
			names = append(names, p.Peer)
		}
	}
	if len(names) == 0 {
		if !s.Peers.Complete {
			return "What peers have acknowledged is not known yet."
		}
		return ""
	}
	const most = 5
	if more := len(names) - most; more > 0 {
		names = append(names[:most], fmt.Sprintf("%d more", more))
	}
	return fmt.Sprintf("Bundle sequence %d is not acknowledged, after %v, by %s.", a.Published, s.Now.Sub(a.PublishedAt).Round(time.Second), strings.Join(names, ", "))
}

// peersOf asks what peers know of a domain's bundle, if a prepared authority depends on it: of this member's own one that is
// otherwise ready, or of any if all is set.
func (m *Manager) peersOf(ctx context.Context, td string, s Situation, all bool) *Peers {
	if m.config.Acknowledgements == nil {
		return nil
	}
	needed := false
	for _, a := range s.Authorities {
		needed = needed || a.State == Prepared && a.Published > 0 && (all || a.Member == s.Member && !s.Now.Before(a.Ready))
	}
	if !needed {
		return nil
	}
	standings, complete, err := m.config.Acknowledgements.Acknowledged(ctx, td)
	if err != nil {
		m.log.Debug("cannot tell what peers have acknowledged", "trust_domain", td, "error", err)
		return &Peers{}
	}
	return &Peers{standings, complete}
}

// unacknowledgedMessages are the peers that may not know an authority, as the API shows them.
func unacknowledgedMessages(s Situation, a Authority) (messages []*ententev1.UnacknowledgedPeer) {
	if a.State != Prepared {
		return nil
	}
	for _, p := range s.unacknowledged(a) {
		messages = append(messages, &ententev1.UnacknowledgedPeer{
			HomeTrustDomain: p.Peer, Sequence: p.Sequence, Refusal: p.Refusal, Connected: p.Connected, For: durationpb.New(s.Now.Sub(a.PublishedAt)),
		})
	}
	return messages
}

// published writes down with authorities that were just prepared from which sequence on the bundle holds what verifies them.
func published(tx *raftstore.Tx, td string, carried []done) error {
	for _, d := range carried {
		if d.Do != Prepare || d.Sequence == 0 {
			continue
		}
		row, ok, err := authorities.Get(tx, authorityKey(td, d.ID))
		if err != nil || !ok {
			return err
		}
		if d.inherits {
			continue
		}
		row.Value.PublishSequence = d.Sequence
		if err := authorities.Put(tx, authorityKey(td, d.ID), row.Value); err != nil {
			return err
		}
	}
	return nil
}
