package plan

import (
	"fmt"
	"strings"
	"time"
)

const (
	// silentHints is the number of refresh hints for which an authority waits for a peer without a stream. A peer that
	// is away for longer fetches the bundle before it relies on it, or counts it as stale.
	silentHints = 6
	// peersCheckInterval is the time after which peers are checked again while an authority waits for them.
	peersCheckInterval = time.Second
)

// PeerAcknowledgement is what a peer has acknowledged of a hosted domain's bundle.
type PeerAcknowledgement struct {
	// Peer is its home trust domain.
	Peer string
	// Sequence is the last one that it acknowledged, Refusal the reason for which it refused a later one.
	Sequence uint64
	Refusal  string
	// Connected is true if a stream is open. Silent is the time since the last stream.
	Connected bool
	Silent    time.Duration
}

// Peers are the peers that subscribe to a domain's bundle. Complete is false while some of them can be unknown.
type Peers struct {
	Acknowledgements []PeerAcknowledgement
	Complete         bool
}

// Unacknowledged returns the peers that may not know what verifies an authority.
func (s Situation) Unacknowledged(a Authority) []PeerAcknowledgement {
	if s.Peers == nil || a.Published == 0 {
		return nil
	}
	silent := silentHints * s.Settings.slowest(s.Settings.RefreshHint)
	var pending []PeerAcknowledgement
	for _, p := range s.Peers.Acknowledgements {
		if p.Sequence < a.Published && (p.Connected || p.Silent < silent) {
			pending = append(pending, p)
		}
	}
	return pending
}

// waitsForPeers reports whether an authority that is otherwise ready waits for acknowledgements.
func (s Situation) waitsForPeers(a Authority) bool {
	return s.Peers != nil && a.Published > 0 && (!s.Peers.Complete || len(s.Unacknowledged(a)) > 0)
}

// latest returns until when an authority waits for peers at most: the last time at which its predecessor can sign SVIDs
// of full length, or, if other members sign instead, three more refresh hints.
func (s Situation) latest(prepared Authority, predecessor *Authority) time.Time {
	if predecessor != nil {
		return predecessor.deadline()
	}
	return prepared.Ready.Add(HintsBeforeUse * s.Settings.slowest(s.Settings.RefreshHint))
}

// PeersSentence names the peers that have not acknowledged an authority. It is empty if the authority waits for none.
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
	return fmt.Sprintf("Bundle sequence %d is not acknowledged, after %v, by %s.", a.Published,
		s.Now.Sub(a.PublishedAt).Round(time.Second), strings.Join(names, ", "))
}
