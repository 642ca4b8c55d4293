package plan

import "time"

// A root of a member's own signs in the first half of its life. Its successor is made in the middle of that time, and
// is in the bundle from then on, with nothing below it. It takes over with the first signing certificate that is made
// after that half. So every root is published long before it signs, and a reader that was without the bundle for as
// long verifies what is signed then.

// Root is a self-signed anchor of a member's own.
type Root struct {
	// ID is the certificate, DER. It is empty if there is none.
	ID                  string
	NotBefore, NotAfter time.Time
}

// RootLead returns for how long a root is in the bundle before it signs, at least: a quarter of the lifetime of roots,
// less the delay of the takeover before, which is up to half of the lifetime of a signing certificate.
func RootLead(root, ca time.Duration) time.Duration { return root/4 - ca/2 }

// succeeds returns when the successor of the root is published.
func (r Root) succeeds() time.Time { return r.NotBefore.Add(r.NotAfter.Sub(r.NotBefore) / 4) }

// SignsUntil returns when the root signs no more, so that everything below it ends in time.
func (r Root) SignsUntil() time.Time { return r.NotBefore.Add(r.NotAfter.Sub(r.NotBefore) / 2) }

// Succession is the input of [Succession.Next]: what decides on the successor of a member's root in one domain.
type Succession struct {
	Now time.Time
	// Present is the root of the member's newest authority.
	Present Root
	// Ends is true if no successor is to be made now: the member's newest authority signs no more, an authority below
	// the present root is distrusted, or an operator requested a new anchor. What comes next decides then. It is also
	// true while a member is of a build that does not know successors.
	Ends bool
	// Successor is the successor in the bundle, and HasKey whether the member has its key.
	Successor Root
	HasKey    bool
}

// Next returns what to do with the successor of a member's root, or "", and when to evaluate it again if nothing
// changes before.
func (s Succession) Next() (do AnchorVerb, why string, next time.Time) {
	switch {
	case s.Successor.ID == "":
		if s.Present.ID == "" || s.Ends || !s.Now.Before(s.Present.NotAfter) {
			return "", "", Never
		}
		if at := s.Present.succeeds(); s.Now.Before(at) {
			return "", "", at
		}
		return PublishAnchor, "it takes over when half of the life of the present root has passed", Never
	case !s.HasKey:
		return DropAnchor, "its member does not have its key", Never
	case !s.Now.Before(s.Successor.SignsUntil()):
		return DropAnchor, "half of its life has passed, and nothing was signed below it", Never
	}
	return "", "", s.Successor.SignsUntil()
}

// LostSuccessor returns why the leader drops the successor of another member, or "", and when to evaluate it again.
func LostSuccessor(now time.Time, member bool, successor Root) (why string, next time.Time) {
	over := successor.NotAfter.Add(ClockTolerance)
	switch {
	case !member:
		return "its member was removed", Never
	case !now.Before(over):
		return "it has expired and its member did not drop it", Never
	}
	return "", over
}
