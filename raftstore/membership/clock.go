package membership

import "time"

// reading is both of this machine's clocks at one moment: the one on the wall, which people and time services set, and
// the steady one, which only runs.
type reading struct {
	wall   time.Time
	steady time.Duration // since the process began
}

var processStart = time.Now()

func readClocks() reading {
	now := time.Now()
	return reading{wall: now.Round(0), steady: now.Sub(processStart)}
}

// setSince is by how much the clock on the wall was set since an earlier reading: what it moved by, less what passed.
func (r reading) setSince(then reading) time.Duration {
	return r.wall.Sub(then.wall) - (r.steady - then.steady)
}

// clockVerdict is how far this member's clock is from a majority's.
type clockVerdict struct {
	known    bool
	distance time.Duration
	read     reading // when it was found
}

// sane says whether the verdict lets this member act by its clock now. It speaks for the clock as it ran then: one that
// was set since is not known to be right.
func (v clockVerdict) sane(now reading) bool {
	return v.known && v.distance <= maxClockDistance && now.setSince(v.read).Abs() <= maxClockDistance
}

// offsetNow is the member's clock minus the leader's. The heartbeat told of the leader's clock as it was then; what that
// was set by since counts too.
func (b beat) offsetNow(now reading) time.Duration { return b.offset - now.setSince(b.read) }
