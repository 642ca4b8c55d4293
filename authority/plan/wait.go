package plan

import (
	"fmt"
	"strings"
	"time"
)

// Wait returns what an authority waits for in one sentence, and until when. An active authority waits for nothing.
func Wait(s Situation, a Authority) (until time.Time, sentence string) {
	switch a.State {
	case Prepared:
		return waitPrepared(s, a)
	case Retiring:
		return a.Leaves(s.Grace), "It stays in the bundle until all that it can have signed has expired."
	case Tainted:
		return a.Leaves(s.Grace), "It no longer signs, and what it signed has to be renewed; " +
			"it stays in the bundle until all of that has expired."
	case Revoked:
		if a.UpstreamAnchor && !a.AnchorRevoked {
			return a.Leaves(s.Grace), "It no longer signs, but its anchor is in the bundle: " +
				"verifiers accept what it signed until all of that has expired."
		}
		return a.Leaves(
			s.Grace), "It is out of the bundle; it is listed until all that it can have signed would have expired."
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
		return at, fmt.Sprintf(
			"It waits for member %s to activate it, which was due %v ago; see whether that member runs.", a.Member,
			late.Round(time.Second))
	case late >= 0:
		return at, fmt.Sprintf("It waits for member %s to activate it.", a.Member)
	case alarm && s.waitsForPeers(a) && !s.Now.Before(a.Ready):
		return at, with(
			"It waits for peers, until its deadline at the latest; 'entente authority activate' activates it at once.")
	case alarm:
		return at, "It waits for its deadline, after which the one before it can no longer sign a full-length SVID."
	case at.Equal(a.NotBefore):
		return at, "It waits to become valid."
	case at.After(a.Ready) && a.spare():
		return at, "It is published ahead, so that peers that are out know it, and takes over then."
	case at.After(a.Ready):
		return at, "It is held in reserve until half of the life of the one before it has passed, " +
			"or until an operator activates it."
	}
	return at, with(fmt.Sprintf("It waits until every reader of the bundle knows it, for which it is published for %d "+
		"refresh hints.", HintsBeforeUse))
}

// RotationTakes returns the duration of a rotation that is requested now: until the prepared authorities are active,
// and then until their successors have been published for long enough.
func RotationTakes(s Situation) time.Duration {
	takes := s.Settings.Dissemination(s.Now)
	s.Rotations.Last++ // authorities in reserve no longer wait
	var pending time.Duration
	for _, a := range s.Authorities {
		if a.State != Prepared || a.spare() { // what was published ahead is replaced
			continue
		}
		if until, _ := Wait(s, a); until.After(s.Now) {
			pending = max(pending, until.Sub(s.Now))
		}
	}
	return pending + takes
}
