package membership

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// What the leader does about bad disks: it hands leadership over if its own is full or far slower than the others', and
// while it cannot commit because of disks it reports that to all members, whose readiness to write depends on it.

const (
	// slowMedian is the median of disk writes above which a leader can be too slow, and slowRatio how many times the
	// voters' median it must be as well: a new leader is of use only if its disk is much faster.
	slowMedian = 250 * time.Millisecond
	slowRatio  = 10
	// slowFor is how long both must hold.
	slowFor = 10 * time.Second
	// handoverEvery is the least time between two handovers of one member.
	handoverEvery = 10 * time.Minute

	handoverTick    = time.Second
	handoverTimeout = 10 * time.Second
)

// voterDisk is what the leader knows of the disk of another voter.
type voterDisk struct {
	id string
	// median is that of its disk writes; 0: not known.
	median time.Duration
	// reachable means that its last heartbeat is recent, and unable that this reports a disk that accepts no writes.
	reachable, unable bool
	// caughtUp means that it has applied what the leader had applied a tick ago.
	caughtUp bool
}

// able reports whether leadership can go to the voter.
func (v voterDisk) able() bool { return v.reachable && !v.unable && v.caughtUp }

// ownDisk is the leader's own disk.
type ownDisk struct {
	median time.Duration
	// unable means that it accepts no writes.
	unable bool
}

// handover decides when this member hands leadership over because of its disk. It lives as long as the process.
type handover struct {
	slowSince time.Time
	last      time.Time
}

// decide returns the voter that leadership goes to, or "". It is called at every tick.
func (h *handover) decide(now time.Time, own ownDisk, voters []voterDisk) string {
	switch {
	case own.unable:
	case !slower(own, voters):
		h.slowSince = time.Time{}
		return ""
	case h.slowSince.IsZero():
		h.slowSince = now
		return ""
	case now.Sub(h.slowSince) < slowFor:
		return ""
	}
	if !h.last.IsZero() && now.Sub(h.last) < handoverEvery {
		return ""
	}
	to := successor(own, voters)
	if to != "" {
		h.last, h.slowSince = now, time.Time{}
	}
	return to
}

// slower reports whether the leader's disk is much slower than the median of the voters'.
func slower(own ownDisk, voters []voterDisk) bool {
	var medians []time.Duration
	for _, v := range voters {
		if v.median > 0 {
			medians = append(medians, v.median)
		}
	}
	if len(medians) == 0 {
		return false
	}
	slices.Sort(medians)
	return own.median > slowMedian && own.median > slowRatio*medians[len(medians)/2]
}

// successor returns the able voter with the fastest disk, or "". It must be faster than the leader's, unless that
// accepts no writes at all.
func successor(own ownDisk, voters []voterDisk) string {
	var able []voterDisk
	for _, v := range voters {
		if v.able() && v.median > 0 && (own.unable || v.median < own.median) {
			able = append(able, v)
		}
	}
	if len(able) == 0 {
		return ""
	}
	return slices.MinFunc(able, func(a, b voterDisk) int { return cmp.Compare(a.median, b.median) }).id
}

// handovers hands leadership over when the disk of this member is full or far slower than the others'.
type handovers struct {
	store  *raftstore.Store
	log    hclog.Logger
	leader *leader

	mu   sync.Mutex
	rule handover
}

// run watches the disk during one term of leadership. It does not write, because writes wait for the disk.
func (h *handovers) run(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rule.slowSince = time.Time{}
	tick := time.NewTicker(handoverTick)
	defer tick.Stop()
	var reached raftstore.Revision // what this member had applied a tick ago
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		own := ownDisk{median: h.store.Disk().Median(), unable: h.store.Disk().Err() != nil}
		if to := h.rule.decide(time.Now(), own, h.leader.voterDisks(reached)); to != "" {
			h.log.Warn("the disk of this member is full or far slower than those of the others: "+
				"handing leadership over", "to", to, "median", own.median)
			transfer, cancel := context.WithTimeout(ctx, handoverTimeout)
			err := h.store.Servers().TransferLeadership(transfer, to)
			cancel()
			if err != nil && ctx.Err() == nil {
				h.log.Warn("could not hand leadership over", "to", to, "error", err)
			}
		}
		reached = h.store.View().Revision()
	}
}

// voterDisks returns what the heartbeats contain of the disks of the other voters.
func (l *leader) voterDisks(reached raftstore.Revision) (voters []voterDisk) {
	beats, reachable, settled := l.beats.Received.All(), l.reachable(), l.settled()
	for _, s := range l.store.Servers().List() {
		if !s.Voter || s.MemberID == l.self {
			continue
		}
		b := beats[s.MemberID]
		voters = append(voters, voterDisk{
			id: s.MemberID, median: b.diskMedian, unable: b.cannotWrite,
			reachable: reachable(s.MemberID) || !settled && b.at.IsZero(),
			caughtUp:  reached != 0 && b.applied >= reached,
		})
	}
	return voters
}

// obstacle returns why a leader cannot commit because of disks, or "". own is the fault of the leader's disk, and
// voters are the others. A voter that is not reachable counts only beside one whose disk is at fault: a leader that has
// lost a majority for another reason steps down.
func obstacle(leader string, own error, voters []voterDisk) string {
	if own != nil {
		return fmt.Sprintf("the leader %s cannot write: %v", leader, own)
	}
	var unable, missing []string
	for _, v := range voters {
		switch {
		case !v.reachable:
			missing = append(missing, v.id+" is not reachable")
		case v.unable:
			unable = append(unable, "the disk of "+v.id+" accepts no writes")
		}
	}
	all := len(voters) + 1
	if len(unable) == 0 || all-len(unable)-len(missing) >= majority(all) {
		return ""
	}
	return "no majority of the members can write: " + strings.Join(append(unable, missing...), ", ")
}

// obstacle returns why this leader cannot commit because of disks, or "".
func (l *leader) obstacle() string { return obstacle(l.self, l.disk(), l.voterDisks(0)) }

// announceTimeout bounds the call by which a leader reports a change of its health.
const announceTimeout = time.Second

// announceHealth reports to the other members whether this leader can commit, whenever that changes, until ctx ends. It
// does not write. A call that fails is made good by the answer to the next heartbeat.
func (l *leader) announceHealth(ctx context.Context, term uint64) {
	var calls sync.WaitGroup
	defer calls.Wait()
	tick := time.NewTicker(leaderPoll)
	defer tick.Stop()
	for announced := ""; ; {
		if now := l.obstacle(); (now == "") != (announced == "") {
			announced = now
			for _, s := range l.store.Servers().List() {
				if s.MemberID != l.self {
					calls.Go(func() { l.announceTo(ctx, s.MemberID, term, now) })
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *leader) announceTo(ctx context.Context, member string, term uint64, obstacle string) {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	conn, err := l.conns.Conn(member)
	if err == nil {
		_, err = ententev1.NewMemberServiceClient(conn).AnnounceHealth(ctx, &ententev1.AnnounceHealthRequest{
			Term: term, CannotCommit: obstacle,
		})
	}
	if err != nil && ctx.Err() == nil {
		l.log.Debug("could not report the health of the leader", "member", member, "error", err)
	}
}

// leaderHealth is what a member last learned about whether the leader can commit.
type leaderHealth struct {
	mu       sync.Mutex
	of       target
	at       time.Time
	obstacle string
}

// maxObstacle bounds the text that another member sends.
const maxObstacle = 1024

// set records the report of a leader, unless a later one is known. at is a time before the report was made.
func (h *leaderHealth) set(of target, at time.Time, obstacle string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if of == h.of && at.Before(h.at) {
		return
	}
	h.of, h.at, h.obstacle = of, at, obstacle[:min(len(obstacle), maxObstacle)]
}

// get returns why a leader cannot commit, or "" if it can. Until a new leader reports, it is taken to be as able as the
// one before: on full disks the lead can move without anybody being able to commit.
func (h *leaderHealth) get(of target) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if of != h.of && h.obstacle != "" {
		return fmt.Sprintf("the new leader %s has not reported yet whether it can commit; the one before could not: %s",
			of.leader, h.obstacle)
	}
	return h.obstacle
}

// ownReport returns what a leader reports of itself to those who list the members.
func ownReport(store *raftstore.Store) *ententev1.MemberReport {
	return beat{
		applied: store.View().Revision(), diskMedian: store.Disk().Median(), cannotWrite: store.Disk().Err() != nil,
	}.message(reading{})
}
