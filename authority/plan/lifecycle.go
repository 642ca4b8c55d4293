package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Kind is what an authority signs.
type Kind int

// The kinds of authority.
const (
	X509 Kind = iota + 1
	JWT
)

// Kinds are all of them, in the order in which they are looked at.
var Kinds = [...]Kind{X509, JWT}

// String is the name that metrics and the audit log use.
func (k Kind) String() string {
	switch k {
	case X509:
		return "x509"
	case JWT:
		return "jwt"
	}
	return fmt.Sprintf("kind(%d)", int(k))
}

// State is where an authority is in its life.
type State int

// The states. An authority passes through the first three in this order; an operator can end it sooner by the others. One
// that is gone is not there any more.
const (
	Prepared State = iota + 1
	Active
	Retiring
	// Tainted is retiring by an operator's word: what it signed is to be renewed, not only to expire.
	Tainted
	// Revoked verifies nothing any more, as far as this cluster decides it. It stays listed until what it signed has
	// expired, so that the holders of that learn of it.
	Revoked
)

// String is the name that metrics and the audit log use.
func (s State) String() string {
	switch s {
	case Prepared:
		return "prepared"
	case Active:
		return "active"
	case Retiring:
		return "retiring"
	case Tainted:
		return "tainted"
	case Revoked:
		return "revoked"
	}
	return fmt.Sprintf("state(%d)", int(s))
}

// Past says whether an authority in this state signs no more.
func (s State) Past() bool { return s == Retiring || s == Tainted || s == Revoked }

// Distrusted says whether what an authority in this state signed is to be renewed at once.
func (s State) Distrusted() bool { return s == Tainted || s == Revoked }

// Authority is what the rules need to know of one authority.
type Authority struct {
	ID     string
	Member string
	Kind   Kind
	State  State
	// Number orders a member's authorities of one kind; the higher one is the newer.
	Number              uint64
	NotBefore, NotAfter time.Time
	// Ready is when what verifies it has been published for long enough.
	Ready time.Time
	// Published is the first sequence of the bundle that holds what verifies it, 0 where that is not known, and PublishedAt
	// when it was prepared.
	Published   uint64
	PublishedAt time.Time
	// Retired is when it stopped signing: set once it is retiring, tainted or revoked.
	Retired time.Time
	// Anchor is what the chain of an X.509 authority leads to; empty for JWT. UpstreamAnchor says that it is not the
	// member's own, but an upstream's, which signs for others below it too.
	Anchor         string
	UpstreamAnchor bool
	// AnchorRevoked says that the anchor was revoked with it.
	AnchorRevoked bool
	// Held says that it was prepared in reserve, and Reserve to which request for one it answers.
	Held    bool
	Reserve uint64
	// LongestSVID is the longest lifetime of what it may have signed.
	LongestSVID time.Duration
	// Rotation is the request to rotate that it answers to, AnchorRotation the one that its anchor does.
	Rotation, AnchorRotation uint64
}

// Leaves is when an authority that signs no more can leave the bundle: nothing that it signed is valid any more.
func (a Authority) Leaves(grace time.Duration) time.Time {
	at := a.Retired.Add(grace + a.LongestSVID)
	if a.NotAfter.Before(at) {
		return a.NotAfter
	}
	return at
}

// renewal is when the successor is prepared: at half of the life, or up to a tenth of the life earlier. How much
// earlier follows from the ID, so that members that started together do not move together, and that a member that
// asks twice gets the same answer.
func (a Authority) renewal() time.Time {
	life := a.NotAfter.Sub(a.NotBefore)
	sum := sha256.Sum256([]byte(a.ID))
	early := life / 10 / (1 << 16) * time.Duration(binary.BigEndian.Uint16(sum[:]))
	return a.NotBefore.Add(life/2 - early)
}

// deadline is the last moment at which the authority can sign SVIDs of full length.
func (a Authority) deadline() time.Time { return a.NotAfter.Add(-a.LongestSVID) }

// Rotations counts the requests of operators to replace a domain's authorities.
type Rotations struct {
	// Last is the number of the last request, Anchors that of the last one that asked for new anchors too.
	Last, Anchors uint64
	// Reserve counts the requests to prepare authorities in reserve.
	Reserve uint64
}

// Situation is all that decides what a member does next with its authorities of one domain.
type Situation struct {
	Now      time.Time
	Member   string
	Settings Settings
	// Grace is for how long a member that lost contact goes on signing.
	Grace       time.Duration
	Rotations   Rotations
	Authorities []Authority // those of the domain, of every member
	// Peers are those that want the domain's bundle over a stream; nil: they do not matter now, or there are none.
	Peers *Peers
	// Keyless says whether the member lacks the key of an authority of its own.
	Keyless func(id string) bool
}

// Verb is what is to be done with an authority.
type Verb string

// What a plan can ask for.
const (
	Prepare  Verb = "prepare"
	Activate Verb = "activate"
	Retire   Verb = "retire"
	End      Verb = "end"
	// Taint and Revoke are asked for by operators, never by [Next].
	Taint  Verb = "taint"
	Revoke Verb = "revoke"
)

// Action is one step of a plan.
type Action struct {
	Do   Verb
	Kind Kind
	// ID names the authority; empty for Prepare, which makes one.
	ID string
	// NewAnchor asks a Prepare for an authority below an anchor of its own.
	NewAnchor bool
	// Held asks a Prepare for one in reserve.
	Held bool
	// Alarm marks what was done because there was no time left to do it properly.
	Alarm bool
	// Why is one clause for the audit log.
	Why string
}

// never is when nothing is due.
var Never time.Time

// sooner returns the earlier of two moments, of which either can be never.
func Sooner(a, b time.Time) time.Time {
	if a.Equal(Never) || (!b.Equal(Never) && b.Before(a)) {
		return b
	}
	return a
}

// Plan says what the member has to do now, and when it has to ask again if nothing changes before. The actions hold
// for the situation as it is; after they have been carried out Plan is asked again.
func Next(s Situation) (actions []Action, next time.Time) {
	for _, kind := range Kinds {
		a, n := PlanKind(s, kind)
		actions, next = append(actions, a...), Sooner(next, n)
	}
	return actions, next
}

func PlanKind(s Situation, kind Kind) (actions []Action, next time.Time) {
	do := func(verb Verb, id, why string) {
		actions = append(actions, Action{Do: verb, Kind: kind, ID: id, Why: why})
	}
	var prepared, active *Authority
	var newest Authority
	suspect := s.Suspect()
	for _, a := range s.own(kind) {
		newest = a // own is in order
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
				next = Sooner(next, s.Now.Add(PeersCheckInterval))
			}
			return actions, Sooner(next, at)
		}
		actions = append(actions, Action{Do: Activate, Kind: kind, ID: prepared.ID, Alarm: alarm, Why: why})
		if active != nil {
			do(Retire, active.ID, "its successor is active")
		}
		return actions, next
	}

	why, held := "", false
	switch {
	case active == nil:
		why = "this member has none"
	case suspect[active.Anchor]:
		why = "an authority below the same anchor as the active one was tainted"
	case active.Rotation < s.Rotations.Last:
		why = "an operator asked for a rotation"
	case !s.Now.Before(active.renewal()):
		why = "half of the life of the active one has passed"
	case active.Reserve < s.Rotations.Reserve:
		why, held = "an operator asked for one in reserve", true
	default:
		return actions, Sooner(next, active.renewal())
	}
	actions = append(actions, Action{
		Do: Prepare, Kind: kind, Why: why, Held: held,
		// A reserve below the anchor of what it is a reserve for would be revoked with it.
		NewAnchor: kind == X509 && (held || newest.AnchorRotation < s.Rotations.Anchors || suspect[newest.Anchor] ||
			newest.AnchorRevoked || (active != nil && suspect[active.Anchor])),
	})
	return actions, next
}

// suspect are the member's own anchors below which an authority was tainted. Nothing new is to sign there: when the
// tainted one is revoked, its anchor has to go, and all below it.
func (s Situation) Suspect() map[string]bool {
	suspect := map[string]bool{}
	for _, a := range s.Authorities {
		if a.Member == s.Member && a.State == Tainted && a.Anchor != "" && !a.UpstreamAnchor {
			suspect[a.Anchor] = true
		}
	}
	return suspect
}

// inReserve says whether a prepared authority waits for its predecessor's time, or for an operator.
func inReserve(s Situation, prepared Authority, predecessor *Authority) bool {
	return prepared.Held && predecessor != nil && predecessor.Rotation >= s.Rotations.Last && !s.Suspect()[predecessor.Anchor]
}

// own are the member's authorities of the kind, the oldest first.
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

// activation is when a prepared authority becomes active, and why then. predecessor is the member's own active one, if any.
func activation(s Situation, prepared Authority, predecessor *Authority) (at time.Time, why string, alarm bool) {
	at, why = prepared.Ready, fmt.Sprintf("it has been published for %d refresh hints", HintsBeforeUse)
	if inReserve(s, prepared, predecessor) && predecessor.renewal().After(at) {
		at, why = predecessor.renewal(), "half of the life of the one before it has passed"
	}
	if latest := s.latest(prepared, predecessor); !s.Now.Before(at) && latest.After(at) && s.waitsForPeers(prepared) {
		at, why, alarm = latest, "there is no time left to wait for peers that have not acknowledged it", true
	}
	if predecessor != nil && predecessor.deadline().Before(at) {
		at, why, alarm = predecessor.deadline(), "the one before it has no time left for a full-length SVID, though not everybody may know this one yet", true
	}
	if !s.Signable(prepared.Kind) {
		at, why, alarm = s.Now, "the domain has no other active authority", false
	}
	if prepared.NotBefore.After(at) {
		at = prepared.NotBefore
	}
	return at, why, alarm
}

// signable says whether any member has an active authority of the kind.
func (s Situation) Signable(kind Kind) bool {
	return slices.ContainsFunc(s.Authorities, func(a Authority) bool {
		return a.Kind == kind && a.State == Active && s.Now.Before(a.NotAfter) && (a.Member != s.Member || !s.Keyless(a.ID))
	})
}
