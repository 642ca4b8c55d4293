package plan

import (
	"time"
)

// late is when the absence of a successor is no passing matter any more: it was due at half of the life, and half of what
// remained then is over.
func (a Authority) Late() time.Time {
	return a.NotBefore.Add(a.NotAfter.Sub(a.NotBefore) / 4 * 3)
}

// alarms says what needs a person: late, an active authority without a successor for too long; none, no authority to sign
// with and none on its way; silent, this member may not sign.
func Alarms(now time.Time, newest map[State]Authority, silent bool) map[string]bool {
	active, isActive := newest[Active]
	_, isPrepared := newest[Prepared]
	return map[string]bool{
		"late":   isActive && !isPrepared && !now.Before(active.Late()),
		"none":   !isActive && !isPrepared,
		"silent": silent,
	}
}

// newestOf are the newest of a member's authorities of a kind, by state.
func Newest(s Situation, kind Kind) map[State]Authority {
	newest := map[State]Authority{}
	for _, a := range s.own(kind) {
		newest[a.State] = a // own is in order
	}
	return newest
}
