package plan

import (
	"time"
)

// Late returns when the lack of a successor becomes an alarm. It was due at half of the life; half of the rest is over
// by then.
func (a Authority) Late() time.Time {
	return a.NotBefore.Add(a.NotAfter.Sub(a.NotBefore) / 4 * 3)
}

// Alarms returns which alarms are on: late, an active authority is without a successor for too long; none, there is
// neither an active nor a prepared authority; silent, this member must not sign.
func Alarms(now time.Time, newest map[State]Authority, silent bool) map[string]bool {
	active, isActive := newest[Active]
	_, isPrepared := newest[Prepared]
	return map[string]bool{
		"late":   isActive && !isPrepared && !now.Before(active.Late()),
		"none":   !isActive && !isPrepared,
		"silent": silent,
	}
}

// Newest returns the newest of a member's authorities of a kind, by state.
func Newest(s Situation, kind Kind) map[State]Authority {
	newest := map[State]Authority{}
	for _, a := range s.own(kind) {
		newest[a.State] = a // own is sorted
	}
	return newest
}
