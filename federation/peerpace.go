package federation

import (
	"context"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/peer/session"
)

const (
	// A peer may open so many streams to one member in a second in the long run, and so many at once, whichever of its members does:
	// each is looked at with all relationships. One whose streams break in good order waits longer and longer between two.
	openRate, openBurst = 1, 4 * maxStreamsPerPeer
	// A peer may send so many messages a second in the long run, and so many at once; and so many bytes. A full set of
	// domains with their acknowledgements fits into the burst.
	messageRate, messageBurst = 50, 4 * session.MaxDomains
	byteRate, byteBurst       = 1 << 20, 32 << 20
	// bundleRate is how many bundles of one peer are looked at in a second, over all its streams to one member, and stored, each of which is a
	// write to Raft: whoever sends more is not read from meanwhile.
	bundleRate, bundleBurst = 10, 2 * session.MaxDomains
	// wordRate is how many bundles of other domains a hub brings in a second, over all its streams to one member, and are stored: after its whole
	// map at once, which is what a new spoke lacks.
	wordRate, wordBurst = 200, bundle.MaxMapDomains
	// interestRate is how often a peer says anew what it takes of this cluster's map, each of which is compared with all of it.
	interestRate, interestBurst = 1, 2 * maxMapInterests
	// Statements that were refused, and bundles that are not wanted any more, may be no fault of the peer's and are forgiven, so many a second
	// and so many at once: those of all domains of a stream, where this cluster is a version behind with every one. A peer that goes on is no
	// peer that is early.
	excuseRate, excuseBurst = 0.1, session.MaxDomains
	// Of streams that are refused, and of bundles and statements of each peer's, so many lines are written to the log and the audit log in a
	// second, and so many at once; the metrics count all.
	refusalRate, refusalBurst = 1, 20
	// maxHeld bounds the bytes of what waits: a spoke that has ten thousand domains names them with some 2 MiB, and does so by two streams where
	// one takes the place of another.
	maxHeld = 4 << 20
)

// peerPace bounds what one peer may ask of a member and have it hold, over all its streams and however often it begins anew.
type peerPace struct {
	opens, messages, bytes, bundles, words, interests, excuses, lines *rate.Limiter
	// told is how fast the peer is told of this cluster's map.
	told *rate.Limiter
	// held is what waits of what the peer said: changes of its map that are to be stored, and what it has of this cluster's.
	held *semaphore.Weighted
	// turn is to look at one thing at a time that the peer brought, with what that takes.
	turn *semaphore.Weighted
}

func newPeerPace() *peerPace {
	return &peerPace{
		opens: rate.NewLimiter(openRate, openBurst), messages: rate.NewLimiter(messageRate, messageBurst), bytes: rate.NewLimiter(byteRate, byteBurst),
		bundles: rate.NewLimiter(bundleRate, bundleBurst), words: rate.NewLimiter(wordRate, wordBurst), interests: rate.NewLimiter(interestRate, interestBurst),
		excuses: rate.NewLimiter(excuseRate, excuseBurst), lines: rate.NewLimiter(refusalRate, refusalBurst),
		told: rate.NewLimiter(mapRate, mapBurst), held: semaphore.NewWeighted(maxHeld), turn: semaphore.NewWeighted(1),
	}
}

// inTurn runs fn when nothing else that the peer brought is looked at. It returns the error of ctx if that ended before.
func (p *peerPace) inTurn(ctx context.Context, fn func() error) error {
	if err := p.turn.Acquire(ctx, 1); err != nil {
		return err
	}
	defer p.turn.Release(1)
	return fn()
}

// paceLocked is that of a peer that relationships name. p.mu is held.
func (p *peers) paceLocked(home string) *peerPace {
	pace, ok := p.paces[home]
	if !ok {
		pace = newPeerPace()
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
	home, open := s.session.Home, len(p.streams[s.session.Home])
	if older == nil && open >= maxStreamsPerPeer || open >= 2*maxStreamsPerPeer {
		return session.Errorf("too_many_streams", "this member has %d streams with %s already", open, home)
	}
	if !s.session.Outgoing && !p.paceLocked(home).opens.AllowN(p.manager.now(), 1) {
		return session.Errorf("too_many_streams", "%s opens streams faster than %d a second; wait longer between two", home, openRate)
	}
	return nil
}
