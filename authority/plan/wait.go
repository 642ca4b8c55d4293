package plan

import (
	"fmt"
	"strings"
	"time"
)

// Wait says what an authority waits for, in one sentence, and until when; nothing for an active one.
func Wait(s Situation, a Authority) (until time.Time, sentence string) {
	switch a.State {
	case Prepared:
		return waitPrepared(s, a)
	case Retiring:
		return a.Leaves(s.Grace), "It stays in the bundle until all that it can have signed has expired."
	case Tainted:
		return a.Leaves(s.Grace), "It no longer signs, and what it signed has to be renewed; it stays in the bundle until all of that has expired."
	case Revoked:
		if a.UpstreamAnchor && !a.AnchorRevoked {
			return a.Leaves(s.Grace), "It no longer signs, but its anchor is in the bundle: verifiers accept what it signed until all of that has expired."
		}
		return a.Leaves(s.Grace), "It is out of the bundle; it is listed until all that it can have signed would have expired."
	}
	return Never, ""
}

func waitPrepared(s Situation, a Authority) (until time.Time, sentence string) {
	var predecessor *Authority
	for _, other := range s.Authorities {
		if other.Member == a.Member && other.Kind == a.Kind && other.State == Active {
			predecessor = &other
		}
	}
	at, _, alarm := activation(s, a, predecessor)
	peers := s.PeersSentence(a)
	with := func(sentence string) string { return strings.TrimSpace(sentence + " " + peers) }
	switch late := s.Now.Sub(at); {
	case late >= time.Second:
		return at, fmt.Sprintf("It waits for member %s to activate it, which was due %v ago; see whether that member runs.", a.Member, late.Round(time.Second))
	case late >= 0:
		return at, fmt.Sprintf("It waits for member %s to activate it.", a.Member)
	case alarm && s.waitsForPeers(a) && !s.Now.Before(a.Ready):
		return at, with("It waits for peers, until its deadline at the latest; 'entente authority activate' has it sign at once.")
	case alarm:
		return at, "It waits for its deadline, at which the one before it can sign no full-length SVID any more."
	case at.Equal(a.NotBefore):
		return at, "It waits to become valid."
	case at.After(a.Ready):
		return at, "It is held in reserve until half of the life of the one before it has passed, or until an operator activates it."
	}
	return at, with(fmt.Sprintf("It waits until every reader of the bundle knows it, for which it is published for %d refresh hints.", HintsBeforeUse))
}

// RotationTakes is how long a rotation takes that is asked for now: until what is on its way is active, and then until
// its successor, which begins with a new JWT key in any case, has been published for long enough.
func RotationTakes(s Situation) time.Duration {
	takes := s.Settings.Dissemination(s.Now)
	s.Rotations.Last++ // which ends the waiting of those in reserve
	var under time.Duration
	for _, a := range s.Authorities {
		if a.State != Prepared {
			continue
		}
		if until, _ := Wait(s, a); until.After(s.Now) {
			under = max(under, until.Sub(s.Now))
		}
	}
	return under + takes
}
