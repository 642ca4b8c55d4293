package membership

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// reading is both clocks of this machine at one moment: the wall clock, which people and time services set, and the
// steady clock, which only runs.
type reading struct {
	wall   time.Time
	steady time.Duration // since the process began
}

var processStart = time.Now()

func readClocks() reading {
	now := time.Now()
	return reading{wall: now.Round(0), steady: now.Sub(processStart)}
}

// setSince returns by how much the wall clock was set since an earlier reading: its movement less the time that passed.
func (r reading) setSince(then reading) time.Duration {
	return r.wall.Sub(then.wall) - (r.steady - then.steady)
}

// clockVerdict is how far this member's clock is from a majority's.
type clockVerdict struct {
	known    bool
	distance time.Duration
	read     reading // when it was measured
}

// sane reports whether the verdict lets this member act by its clock now. It applies to the clock as it was: one that
// was set since then is not known to be right.
func (v clockVerdict) sane(now reading) bool {
	return v.known && v.distance <= maxClockDistance && now.setSince(v.read).Abs() <= maxClockDistance
}

func (v clockVerdict) bad() bool { return v.known && v.distance > maxClockDistance }

// clockJudge keeps the latest verdict on this member's clock.
type clockJudge struct {
	log     hclog.Logger
	metrics *metrics

	mu      sync.Mutex
	verdict clockVerdict
}

func (j *clockJudge) sane() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.verdict.sane(readClocks())
}

// judged reports whether there was a verdict since the start.
func (j *clockJudge) judged() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.verdict.known
}

// judge adopts a verdict, and logs when it changes between good and bad. offset is how far the clock is ahead of the
// leader's.
func (j *clockJudge) judge(v clockVerdict, offset time.Duration) {
	j.mu.Lock()
	was := j.verdict
	v.read = readClocks()
	j.verdict = v
	j.mu.Unlock()
	j.metrics.clockOffset.Set(offset.Seconds())
	j.metrics.clockDistance.Set(v.distance.Seconds())
	switch {
	case v.bad() && !was.bad():
		j.log.Error("this member's clock differs from the others': it signs nothing until that is corrected; "+
			"check its time service",
			"distance_from_majority", v.distance, "ahead_of_leader", offset, "bound", maxClockDistance)
	case was.bad() && !v.bad():
		j.log.Info("this member's clock agrees with the others' again", "distance_from_majority", v.distance)
	}
}
