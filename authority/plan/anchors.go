package plan

import "time"

// ListedAnchor is an anchor as an upstream lists it.
type ListedAnchor struct {
	ID       string // the certificate, DER
	NotAfter time.Time
}

// KnownAnchor is an anchor of an upstream that is in the tables.
type KnownAnchor struct {
	ID        string
	NotAfter  time.Time
	Published bool
	// Unlisted is when the upstream of the leader stopped listing it, or [Never] while it lists it.
	Unlisted time.Time
	// InUse is true if an authority is below it, in any state.
	InUse bool
}

// AnchorSituation is the input of [Anchors].
type AnchorSituation struct {
	Now time.Time
	// Leads is true on the leader. It alone records what the upstream no longer lists, so that members whose upstreams
	// differ do not undo each other's changes.
	Leads bool
	// Approval makes a new anchor wait for an operator.
	Approval bool
	// Seen is true once this member knows what the upstream lists. An upstream without anchors of its own lists none.
	Seen   bool
	Listed []ListedAnchor
	Known  []KnownAnchor
	// First is true if nothing verifies X509-SVIDs of the domain yet. Its first anchor is published with its first
	// authorities, without waiting: it is the one that the operator configured.
	First bool
	// Revoked reports whether an anchor was revoked.
	Revoked func(id string) bool
}

// AnchorVerb is an operation on an anchor of an upstream.
type AnchorVerb string

// The operations of [Anchors].
const (
	PublishAnchor AnchorVerb = "publish"
	HoldAnchor    AnchorVerb = "hold"
	UnlistAnchor  AnchorVerb = "unlist"
	RelistAnchor  AnchorVerb = "relist"
	DropAnchor    AnchorVerb = "drop"
)

// AnchorAction is one step of a plan.
type AnchorAction struct {
	Do AnchorVerb
	ID string
	// Why is one clause for the audit log.
	Why string
}

// unlistedGrace is the time for which an anchor stays that the upstream no longer lists and that nothing is below:
// members read the list at different times, and one can be requesting a signature below it.
const unlistedGrace = 5 * time.Minute

// Anchors returns what to do with the anchors of an upstream now, and when to evaluate it again if nothing changes
// before. A new anchor is published before anything is signed below it, or held until an operator approves it. One that
// the upstream no longer lists leaves when no authority is below it.
func Anchors(s AnchorSituation) (actions []AnchorAction, next time.Time) {
	if !s.Seen || s.First {
		return nil, Never
	}
	do := func(verb AnchorVerb, id, why string) { actions = append(actions, AnchorAction{verb, id, why}) }
	known, listed := map[string]bool{}, map[string]bool{}
	for _, a := range s.Listed {
		listed[a.ID] = true
	}
	for _, a := range s.Known {
		known[a.ID] = true
		switch {
		case s.Revoked(a.ID):
			do(DropAnchor, a.ID, "it was revoked")
		case !a.InUse && !s.Now.Before(a.NotAfter):
			do(DropAnchor, a.ID, "it has expired")
		case !a.Published && listed[a.ID] && !s.Approval:
			do(PublishAnchor, a.ID, "anchors no longer need approval")
		case listed[a.ID] && !a.Unlisted.Equal(Never) && s.Leads:
			do(RelistAnchor, a.ID, "the upstream lists it again")
		case listed[a.ID] || !s.Leads:
		case a.Unlisted.Equal(Never):
			do(UnlistAnchor, a.ID, "the upstream no longer lists it")
		case a.InUse:
		case !s.Now.Before(a.Unlisted.Add(unlistedGrace)):
			do(DropAnchor, a.ID, "the upstream no longer lists it, and nothing that is alive was signed below it")
		default:
			next = Sooner(next, a.Unlisted.Add(unlistedGrace))
		}
		if !a.InUse {
			next = Sooner(next, a.NotAfter)
		}
	}
	for _, a := range s.Listed {
		switch {
		case known[a.ID] || s.Revoked(a.ID) || !s.Now.Before(a.NotAfter):
		case s.Approval:
			do(HoldAnchor, a.ID, "it is new in the upstream, and waits for an operator's approval")
		default:
			do(PublishAnchor, a.ID, "it is new in the upstream")
		}
	}
	return actions, next
}
