package federation

import (
	"golang.org/x/time/rate"

	"github.com/ententehq/entente/bundle"
)

const (
	// A peer may open so many streams to one member in a second in the long run, and so many at once, whichever of its members does:
	// each is looked at with all relationships. One whose streams break in good order waits longer and longer between two.
	openRate, openBurst = 1, 4 * maxStreamsPerPeer
	// bundleRate is how many bundles of one peer are looked at in a second, over all its streams to one member, and stored, each of which is a
	// write to Raft: whoever sends more is not read from meanwhile.
	bundleRate, bundleBurst = 10, 2 * maxPeerDomains
	// wordRate is how many bundles of other domains a hub brings in a second, over all its streams to one member, and are stored: after its whole
	// map at once, which is what a new spoke lacks.
	wordRate, wordBurst = 200, bundle.MaxMapDomains
	// interestRate is how often a peer says anew what it takes of this cluster's map, each of which is compared with all of it.
	interestRate, interestBurst = 1, 2 * maxMapInterests
	// Statements that were refused, and bundles that are not wanted any more, may be no fault of the peer's and are forgiven, so many a second
	// and so many at once: those of all domains of a stream, where this cluster is a version behind with every one. A peer that goes on is no
	// peer that is early.
	excuseRate, excuseBurst = 0.1, maxPeerDomains
	// Of streams that are refused, and of bundles and statements of each peer's, so many lines are written to the log and the audit log in a
	// second, and so many at once; the metrics count all.
	refusalRate, refusalBurst = 1, 20
)

// peerPace bounds what one peer may ask of a member, however often it begins anew.
type peerPace struct {
	opens, bundles, words, interests, excuses, lines *rate.Limiter
}

// paceLocked is that of a peer that relationships name. p.mu is held.
func (p *peers) paceLocked(home string) *peerPace {
	pace, ok := p.paces[home]
	if !ok {
		pace = &peerPace{
			opens: rate.NewLimiter(openRate, openBurst), bundles: rate.NewLimiter(bundleRate, bundleBurst),
			words: rate.NewLimiter(wordRate, wordBurst), interests: rate.NewLimiter(interestRate, interestBurst),
			excuses: rate.NewLimiter(excuseRate, excuseBurst), lines: rate.NewLimiter(refusalRate, refusalBurst),
		}
		p.paces[home] = pace
	}
	return pace
}

// tells reports whether one more refusal of what a peer brings is written down.
func (p *peers) tells(home string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pace, ok := p.paces[home]
	return !ok || pace.lines.AllowN(p.manager.now(), 1)
}

// crowdedLocked says why a peer can have no further stream at this member. older is the one that the new one replaces; those that are ending
// count too. p.mu is held.
func (p *peers) crowdedLocked(s *stream, older *stream) error {
	home, open := s.session.home, len(p.streams[s.session.home])
	if older == nil && open >= maxStreamsPerPeer || open >= 2*maxStreamsPerPeer {
		return violation("too_many_streams", "this member has %d streams with %s already", open, home)
	}
	if !s.session.outgoing && !p.paceLocked(home).opens.AllowN(p.manager.now(), 1) {
		return violation("too_many_streams", "%s opens streams faster than %d a second; wait longer between two", home, openRate)
	}
	return nil
}
