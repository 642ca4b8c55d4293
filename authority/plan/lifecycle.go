package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Rotations are the requests of operators to replace a domain's authorities.
type Rotations struct {
	// Last is the number of the last request, Anchors that of the last request for new anchors.
	Last, Anchors uint64
	// Reserve counts the requests to prepare authorities in reserve.
	Reserve uint64
}

// Situation is the input of [Next]: everything that decides what a member does with its authorities of one domain.
type Situation struct {
	Now      time.Time
	Member   string
	Settings Settings
	// Grace is the time for which a member without contact to the leader continues to sign.
	Grace       time.Duration
	Rotations   Rotations
	Authorities []Authority // those of the domain, of every member
	// Peers are those that subscribe to the domain's bundle. It is nil if there are none, or if they do not matter now.
	Peers *Peers
	// Older reports whether a member runs a build that does not know keys and roots that are published ahead.
	Older bool
	// Keyless reports whether the member lacks the key of an authority of its own.
	Keyless func(id string) bool
}

// Verb is an operation on an authority.
type Verb string

// The operations.
const (
	Prepare  Verb = "prepare"
	Activate Verb = "activate"
	Retire   Verb = "retire"
	End      Verb = "end"
	// Taint and Revoke come from operators, never from [Next].
	Taint  Verb = "taint"
	Revoke Verb = "revoke"
)

// Action is one step of a plan.
type Action struct {
	Do   Verb
	Kind Kind
	// ID is the authority. It is empty for Prepare, which makes one.
	ID string
	// NewAnchor makes Prepare use a new anchor.
	NewAnchor bool
	// Held makes Prepare prepare an authority in reserve, and Ahead one whose key is published ahead.
	Held, Ahead bool
	// Alarm marks an action that could not wait until every reader knows the authority.
	Alarm bool
	// Why is one clause for the audit log.
	Why string
}

// Never is the time of something that is not due.
var Never time.Time

// Sooner returns the earlier of two times, each of which can be [Never].
func Sooner(a, b time.Time) time.Time {
	if a.Equal(Never) || (!b.Equal(Never) && b.Before(a)) {
		return b
	}
	return a
}

// Next returns what the member has to do now, and when to evaluate it again if nothing changes before. After the
// actions have been carried out, it has to be evaluated again.
func Next(s Situation) (actions []Action, next time.Time) {
	for _, kind := range Kinds {
		a, n := planKind(s, kind)
		actions, next = append(actions, a...), Sooner(next, n)
	}
	return actions, next
}

func planKind(s Situation, kind Kind) (actions []Action, next time.Time) {
	do := func(verb Verb, id, why string) {
		actions = append(actions, Action{Do: verb, Kind: kind, ID: id, Why: why})
	}
	var prepared, active *Authority
	var newest Authority
	suspect := s.Suspect()
	for _, a := range s.own(kind) {
		newest = a // own is sorted
		switch {
		case !s.Now.Before(a.NotAfter):
			do(End, a.ID, "it has expired")
		case a.State.Past():
			if leaves := a.Leaves(s.Grace); !s.Now.Before(leaves) {
				do(End, a.ID, "all that it signed has expired")
			} else {
				next = Sooner(next, leaves)
			}
		case s.Keyless(a.ID) && a.State == Prepared:
			do(End, a.ID, "this member does not have its key, and it never signed")
		case s.Keyless(a.ID):
			do(Retire, a.ID, "this member does not have its key")
		case a.State == Prepared && suspect[a.Anchor]:
			do(End, a.ID, "an authority below the same anchor was tainted, and this one never signed")
		case a.spare() && (a.Rotation < s.Rotations.Last || a.Reserve < s.Rotations.Reserve):
			do(End, a.ID, "an operator requested a new one, and this one never signed")
		case a.State == Prepared:
			if prepared != nil {
				do(End, prepared.ID, "a newer one was prepared")
			}
			prepared, next = &a, Sooner(next, a.NotAfter)
		default:
			if active != nil {
				do(Retire, active.ID, "a newer one is active")
			}
			active, next = &a, Sooner(next, a.NotAfter)
		}
	}

	if prepared != nil {
		at, why, alarm := activation(s, *prepared, active)
		if s.Now.Before(at) {
			if s.waitsForPeers(*prepared) {
				next = Sooner(next, s.Now.Add(peersCheckInterval))
			}
			return actions, Sooner(next, at)
		}
		actions = append(actions, Action{Do: Activate, Kind: kind, ID: prepared.ID, Alarm: alarm, Why: why})
		if active != nil {
			do(Retire, active.ID, "its successor is active")
		}
		return actions, next
	}

	why, held, ahead := "", false, false
	switch {
	case active == nil:
		why = "this member has none"
	case suspect[active.Anchor]:
		why = "an authority below the same anchor as the active one was tainted"
	case active.Rotation < s.Rotations.Last:
		why = "an operator requested a rotation"
	case active.Reserve < s.Rotations.Reserve && (s.publishesAhead(kind) || s.Now.Before(active.renewal())):
		why, held, ahead = "an operator requested one in reserve", true, s.publishesAhead(kind)
	case s.Now.Before(s.succession(*active)):
		return actions, Sooner(next, s.succession(*active))
	case s.publishesAhead(kind):
		why, ahead = "its key is published long before it takes over", true
	default:
		why = "half of the life of the active one has passed"
	}
	actions = append(actions, Action{
		Do: Prepare, Kind: kind, Why: why, Held: held, Ahead: ahead,
		// A reserve below the anchor of the authority that it replaces would be revoked with it.
		NewAnchor: kind == X509 && (held || newest.AnchorRotation < s.Rotations.Anchors || suspect[newest.Anchor] ||
			newest.AnchorRevoked || (active != nil && suspect[active.Anchor])),
	})
	return actions, next
}

// publishesAhead reports whether authorities of the kind are published for a part of their life before they take over.
func (s Situation) publishesAhead(kind Kind) bool { return kind == JWT && !s.Older }

// succession returns when the successor of an active authority is prepared. The key of a JWT authority is published a
// quarter of a life ahead.
func (s Situation) succession(active Authority) time.Time {
	if s.publishesAhead(active.Kind) {
		return active.renewal().Add(-JWTLead(active.NotAfter.Sub(active.NotBefore)))
	}
	return active.renewal()
}

// Suspect returns the member's own anchors below which an authority was tainted. Nothing new is signed there: when the
// tainted authority is revoked, its anchor is revoked too, with everything below it.
func (s Situation) Suspect() map[string]bool {
	suspect := map[string]bool{}
	for _, a := range s.Authorities {
		if a.Member == s.Member && a.State == Tainted && a.Anchor != "" && !a.UpstreamAnchor {
			suspect[a.Anchor] = true
		}
	}
	return suspect
}

// inReserve reports whether a prepared authority waits for its predecessor's renewal, or for an operator.
func inReserve(s Situation, prepared Authority, predecessor *Authority) bool {
	return prepared.Held && predecessor != nil && predecessor.Rotation >= s.Rotations.Last &&
		!s.Suspect()[predecessor.Anchor]
}

// own returns the member's authorities of the kind, oldest first.
func (s Situation) own(kind Kind) []Authority {
	var own []Authority
	for _, a := range s.Authorities {
		if a.Member == s.Member && a.Kind == kind {
			own = append(own, a)
		}
	}
	slices.SortFunc(own, func(a, b Authority) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.ID, b.ID))
	})
	return own
}

// activation returns when a prepared authority becomes active, and why. predecessor is the active one of its member, or
// nil.
func activation(s Situation, prepared Authority, predecessor *Authority) (at time.Time, why string, alarm bool) {
	at, why = prepared.Ready, fmt.Sprintf("it has been published for %d refresh hints", HintsBeforeUse)
	if inReserve(s, prepared, predecessor) && predecessor.renewal().After(at) {
		at, why = predecessor.renewal(), "half of the life of the one before it has passed"
	}
	if prepared.Ahead && predecessor != nil && predecessor.Rotation >= s.Rotations.Last {
		takeover := Sooner(prepared.PublishedAt.Add(JWTLead(prepared.NotAfter.Sub(prepared.NotBefore))),
			predecessor.deadline())
		if takeover.After(at) {
			at, why = takeover, "it has been published ahead for a quarter of its life"
		}
	}
	if latest := s.latest(prepared, predecessor); !s.Now.Before(at) && latest.After(at) && s.waitsForPeers(prepared) {
		at, why, alarm = latest, "there is no time left to wait for peers that have not acknowledged it", true
	}
	if predecessor != nil && predecessor.deadline().Before(at) {
		at, alarm = predecessor.deadline(), true
		why = "the one before it has no time left for a full-length SVID, though not everybody may know this one yet"
	}
	if !s.Signable(prepared.Kind) {
		at, why, alarm = s.Now, "the domain has no other active authority", false
	}
	if prepared.NotBefore.After(at) {
		at = prepared.NotBefore
	}
	return at, why, alarm
}

// Due reports whether a prepared authority would be activated now if no peer had to acknowledge it.
func (s Situation) Due(prepared Authority) bool {
	s.Peers = nil
	var predecessor *Authority
	for _, a := range s.own(prepared.Kind) {
		if a.State == Active {
			predecessor = &a
		}
	}
	at, _, _ := activation(s, prepared, predecessor)
	return !s.Now.Before(at)
}

// Signable reports whether any member has an active authority of the kind.
func (s Situation) Signable(kind Kind) bool {
	return slices.ContainsFunc(s.Authorities, func(a Authority) bool {
		return a.Kind == kind && a.State == Active && s.Now.Before(a.NotAfter) &&
			(a.Member != s.Member || !s.Keyless(a.ID))
	})
}
