package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/e2e/chaos"
)

var (
	chaosTime = flag.Duration("chaos", 0, "how long chaos lasts")
	chaosSeed = flag.Uint64("chaos.seed", 1, "the seed of the schedule of faults")
)

// chaosRun is a run of chaos against a cluster of processes.
type chaosRun struct {
	t      *testing.T
	c      *cluster
	world  *world // nil without network namespaces
	h      *chaos.History
	began  time.Time
	seed   uint64
	faults map[chaos.Kind]int
	wrong  []string

	restored []chaos.Restored // restores of this step, whose end is not known yet
	logged   map[*process]int // how much of a member's log was read
	load     *load
	figures  figures
}

// figures count what a run has done.
type figures struct {
	operations, acknowledged, issued, fetched, transactions, repairs, ends int
}

// TestChaosShort is `make chaos` without the faults that need rights, and without verdicts on times.
func TestChaosShort(t *testing.T) {
	r := newChaosRun(t, newCluster(t, "eu", 3, quick), *chaosSeed)
	r.phase("0", func() {
		alone := 0
		for step := range chaos.Steps(r.seed, chaos.Plain, len(r.c.members)) {
			overlapping := len(step.Faults) > 1
			if overlapping && step.Number > 3 {
				continue // one such step is enough for a short form
			}
			if !overlapping {
				alone++
			}
			if alone > len(chaos.Plain) {
				break
			}
			step.Lasts = min(step.Lasts, 300*time.Millisecond)
			r.take(step)
		}
	})
	r.report()
}

// TestChaos is `make chaos`: real processes in network namespaces, on disks and with clocks that a schedule of faults
// disturbs. It runs for the time in -chaos, and is skipped without that.
func TestChaos(t *testing.T) {
	if *chaosTime == 0 {
		t.Skip("left out: it runs for minutes; `make chaos` runs it")
	}
	programs := os.Getenv(insideEnv)
	if programs == "" {
		requireTools(t)
		programs = t.TempDir()
		buildWithClock(t, filepath.Join(programs, "entente"))
		buildFaultFS(t, filepath.Join(programs, "faultfs"))
		runInNamespaces(t, programs)
		return
	}
	isolateMounts(t)
	binary = filepath.Join(programs, "entente")
	c := &cluster{t: t, name: "eu", domain: "eu.example.org", extra: quick}
	w := newWorld(t, 3, filepath.Join(programs, "faultfs"))
	c.host = w.host
	c.form(3)
	r := newChaosRun(t, c, *chaosSeed)
	r.world = w
	r.phases(*chaosTime, slices.Concat(chaos.Plain, chaos.Networks, chaos.Disks, chaos.Clocks))
	r.report()
}

func newChaosRun(t *testing.T, c *cluster, seed uint64) *chaosRun {
	return &chaosRun{
		t: t, c: c, h: &chaos.History{}, began: time.Now(), seed: seed, faults: map[chaos.Kind]int{},
		logged: map[*process]int{},
	}
}

// writeReadinessLimit is how long a member may go on to claim that it can write while no write through it succeeds: two
// seconds on an idle machine, and one more on one that runs all members and their clients.
const writeReadinessLimit = 3 * time.Second

// stepsOfPhase is how many faults come between two checks.
const stepsOfPhase = 12

// phases injects faults for a time, and checks what the clients saw after some of them at a time.
func (r *chaosRun) phases(lasts time.Duration, kinds []chaos.Kind) {
	next, stop := iter.Pull(chaos.Steps(r.seed, kinds, len(r.c.members)))
	defer stop()
	for n := 0; time.Since(r.began) < lasts && len(r.wrong) == 0; n++ {
		r.phase(fmt.Sprint(n), func() {
			for range stepsOfPhase {
				if step, _ := next(); time.Since(r.began) < lasts && len(r.wrong) == 0 {
					r.take(step)
				}
			}
		})
	}
}

// phase injects faults under load, and then checks what the clients saw.
func (r *chaosRun) phase(name string, inject func()) {
	r.load = startLoad(r.t, r.c, r.h, r.began, r.seed, name)
	eventually(r.t, "there is load", func() error {
		if n := r.h.Acknowledged(); n < 20 {
			return fmt.Errorf("%d acknowledged writes", n)
		}
		return nil
	})
	inject()
	r.load.end()
	r.check()
}

// settle waits until every member is ready to read and to write.
func (r *chaosRun) settle(step chaos.Step) {
	eventually(r.t, "the cluster comes through "+step.String(), func() error {
		for _, p := range r.c.members {
			if err := r.ready(p); err != nil {
				return err
			}
		}
		return nil
	})
	for _, restored := range r.restored {
		restored.Return = time.Since(r.began)
		r.h.Add(restored)
	}
	r.restored = nil
	for _, p := range r.c.members {
		r.trace(p)
	}
}

// ready returns why a member is not ready to read and to write. One that has ended by itself is started again, after it
// was repaired if it says so.
func (r *chaosRun) ready(p *process) error {
	if !p.isRunning() && !r.repaired(p) {
		r.figures.ends++
		r.start(p)
	}
	if err := errors.Join(p.ready(), p.readyTo("/ready/write")); err != nil {
		return fmt.Errorf("%s: %w", p.id, err)
	}
	return nil
}

// trace looks for the trace of a panic in what a member has logged since the last time.
func (r *chaosRun) trace(p *process) {
	log := p.logs()
	said := log[r.logged[p]:]
	r.logged[p] = len(log)
	for _, sign := range []string{"panic:", "goroutine ", "fatal error:", "DATA RACE"} {
		if at := strings.Index(said, sign); at >= 0 {
			r.wrong = append(
				r.wrong,
				fmt.Sprintf("%s has a trace in its log: %s", p.id, said[at:min(len(said), at+2000)]),
			)
			return
		}
	}
}

// repaired repairs a member that has ended and says that it has to be repaired, starts it, and reports whether it did.
func (r *chaosRun) repaired(p *process) bool {
	var last string
	for line := range strings.Lines(p.logs()[r.logged[p]:]) {
		if strings.HasPrefix(line, "entente: ") { // one line for each part that failed, the cause first
			last += line
		}
	}
	r.t.Logf("%s has ended: %s", p.id, last)
	if last == "" {
		r.wrongf("%s ended without a line that says why", p.id)
	}
	r.trace(p)
	if !strings.Contains(last, "entente cluster repair "+p.id) {
		return false
	}
	r.figures.repairs++
	eventually(r.t, "the repair of "+p.id+" is ordered", func() error {
		ctx, cancel := context.WithTimeout(r.t.Context(), callLimit)
		defer cancel()
		_, err := r.c.others(p)[0].socket().Cluster().RepairMember(ctx, &ententev1.RepairMemberRequest{Id: p.id})
		return err
	})
	r.start(p)
	return true
}

// check checks what the clients of a load saw, and what the members have. The next phase begins with an empty history,
// but for the numbers that must not fall.
func (r *chaosRun) check() {
	found, texts := contents(r.t, r.c, r.load.name)
	transactions, checked := r.h.CheckTransactions(time.Minute)
	r.wrong = slices.Concat(r.wrong, r.load.wrong, transactions, r.h.CheckSeen(), r.h.CheckReady(), r.h.CheckIssued(),
		r.h.CheckWrites(found), chaos.CheckSame(texts), diverged(r.t, r.c))
	if r.world != nil {
		r.wrong = append(r.wrong, r.h.CheckWriteReadiness(writeReadinessLimit)...)
	}
	r.figures.operations += r.load.calls
	r.figures.acknowledged += r.h.Acknowledged()
	r.figures.issued += len(r.h.Issued)
	r.figures.fetched += len(r.h.Seen)
	r.figures.transactions += checked
	r.h = r.h.Next()
	r.load.tidy(r.t)
}

// report prints the figures, and fails the test if something was wrong.
func (r *chaosRun) report() {
	r.t.Logf(
		"seed %d, %s: %+v, faults %v, %d wrong",
		r.seed,
		time.Since(r.began).Round(time.Second),
		r.figures,
		r.faults,
		len(r.wrong),
	)
	require.Empty(r.t, r.wrong, "replay it with: make chaos SEED=%d CHAOS=%s", r.seed, *chaosTime)
	require.NotZero(r.t, r.figures.acknowledged)
	require.NotZero(r.t, r.figures.issued)
	require.NotZero(r.t, r.figures.transactions)
}
