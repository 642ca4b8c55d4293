package plan

import "time"

// ListedAnchor is an anchor as an upstream lists it.
type ListedAnchor struct {
	ID       string // the certificate, DER
	NotAfter time.Time
}

// KnownAnchor is what the rules need to know of an anchor of an upstream that is written down.
type KnownAnchor struct {
	ID        string
	NotAfter  time.Time
	Published bool
	// Unlisted is since when the upstream of the leader lists it no more; never: it does.
	Unlisted time.Time
	// InUse says that an authority is below it, in whatever state.
	InUse bool
}

// AnchorSituation is all that decides what a member does with the anchors of a domain's upstream.
type AnchorSituation struct {
	Now time.Time
	// Leads says whether this member leads: it alone says what the upstream lists no more, so that members which see
	// different things do not contradict each other for ever.
	Leads bool
	// Approval says that a new anchor waits for an operator.
	Approval bool
	// Seen says whether this member knows what the upstream lists. One that has not looked yet knows nothing, and an upstream
	// without anchors of its own lists none.
	Seen   bool
	Listed []ListedAnchor
	Known  []KnownAnchor
	// First says that nothing verifies X509-SVIDs of the domain yet. Its first anchor comes with its first authorities, so that it
	// begins with all that it needs, and waits for nobody: it is what the operator has configured.
	First bool
	// Revoked says which anchors must not come back.
	Revoked func(id string) bool
}

// AnchorVerb is what is to be done with an anchor of an upstream.
type AnchorVerb string

// What [Anchors] can ask for.
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

// unlistedGrace is for how long an anchor stays that the upstream lists no more and nothing is below: members do not look at
// the same moment, and one may just be asking for a signature below it.
const unlistedGrace = 5 * time.Minute

// PlanAnchors says what to do with the anchors of an upstream now, and when to ask again if nothing changes before. A new
// anchor is published before anything is signed below it, or held until an operator approves it; one that the upstream lists
// no more leaves when no authority is below it.
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
			do(PublishAnchor, a.ID, "anchors need no approval any more")
		case listed[a.ID] && !a.Unlisted.Equal(Never) && s.Leads:
			do(RelistAnchor, a.ID, "the upstream lists it again")
		case listed[a.ID] || !s.Leads:
		case a.Unlisted.Equal(Never):
			do(UnlistAnchor, a.ID, "the upstream lists it no more")
		case a.InUse:
		case !s.Now.Before(a.Unlisted.Add(unlistedGrace)):
			do(DropAnchor, a.ID, "the upstream lists it no more, and nothing that is alive was signed below it")
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
