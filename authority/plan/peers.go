package plan

import (
	"fmt"
	"strings"
	"time"
)

const (
	// SilentHints is for how many refresh hints a peer without a stream is waited for: whoever is away for longer reads the bundle
	// before it relies on it, or counts it as stale.
	SilentHints = 6
	// acknowledgeCheck is how often peers are asked after while an authority waits for them.
	PeersCheckInterval = time.Second
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

// Peers is what is known of the peers that want a domain's bundle.
type Peers struct {
	Standings []PeerStanding
	Complete  bool
}

// unacknowledged are the peers that may not know what verifies an authority.
func (s Situation) Unacknowledged(a Authority) []PeerStanding {
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
	return s.Peers != nil && a.Published > 0 && (!s.Peers.Complete || len(s.Unacknowledged(a)) > 0)
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
func (s Situation) PeersSentence(a Authority) string {
	if s.Peers == nil || a.Published == 0 {
		return ""
	}
	var names []string
	for _, p := range s.Unacknowledged(a) {
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
