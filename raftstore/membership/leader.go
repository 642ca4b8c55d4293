package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memory"
)

// beat is the last heartbeat of a member. Its time is measured by the process's steady clock, independently of the wall
// clock.
type beat struct {
	at      time.Time
	read    reading
	offset  time.Duration // the member's clock minus the leader's, then
	applied raftstore.Revision
	// diskMedian is the median of its disk writes; 0: not known.
	diskMedian  time.Duration
	cannotWrite bool
	// electionTimeout is for how long it waits for a leader; 0: not known.
	electionTimeout time.Duration
	digests         []*ententev1.StateDigest
}

// offsetNow is the member's clock minus the leader's now, if the leader's clock was set since the heartbeat.
func (b beat) offsetNow(now reading) time.Duration { return b.offset - now.setSince(b.read) }

// message returns what the member reported, as the API has it.
func (b beat) message(now reading) *ententev1.MemberReport {
	out := &ententev1.MemberReport{
		AppliedRevision: uint64(b.applied), ClockOffset: durationpb.New(b.offsetNow(now)), CannotWrite: b.cannotWrite,
	}
	if b.diskMedian > 0 {
		out.DiskMedian = durationpb.New(b.diskMedian)
	}
	if b.electionTimeout > 0 {
		out.ElectionTimeout = durationpb.New(b.electionTimeout)
	}
	return out
}

const (
	leaderTick = 200 * time.Millisecond
	// leaderTimeout bounds one change that the leader makes by itself; it tries again at its next tick.
	leaderTimeout = 5 * time.Second
	// heartbeatSection is the section in which the leader keeps the heartbeats themselves.
	heartbeatSection = "membership"
)

// leader does the work of the leader: it receives the heartbeats, marks members alive, and gives votes.
type leader struct {
	store        *raftstore.Store
	self         string
	aliveTimeout time.Duration
	conns        Conns
	// disk returns why the disk of this member accepts no writes, or nil.
	disk       func() error
	now        func() time.Time
	log        hclog.Logger
	metrics    *metrics
	clock      *clockJudge
	divergence *divergence
	sections   *sections
	handovers  *handovers
	// commitMoves commits the addresses that members have stated, until its context ends.
	commitMoves func(context.Context)
	// completeRemovals completes the removals that an earlier leader has begun, until its context ends.
	completeRemovals func(context.Context)
	// mend removes members that have been dead for long, until its context ends.
	mend func(context.Context)
	// earlier returns which other member led last, and when this member had contact to it.
	earlier func() (id string, at time.Time)
	// changing is held while the Raft configuration is changed.
	changing *sync.Mutex
	// beats are the last heartbeats by member, in this term.
	beats *memory.Section[string, beat]

	mu   sync.Mutex
	term uint64 // 0: this member does not lead
}

// newHeartbeatSection returns the section of the heartbeats. Its reports are the heartbeats themselves, so that it has
// nothing to collect. earlier returns which other member led last, and when this member had contact to it.
func newHeartbeatSection(
	divergence *divergence, earlier func() (id string, at time.Time),
) *memory.Section[string, beat] {
	var section *memory.Section[string, beat]
	section = memory.New(memory.Config[string, beat]{
		Name:   heartbeatSection,
		Encode: func(memory.Report[string, beat]) ([]byte, error) { return nil, nil },
		Decode: func(string, []byte) (r memory.Report[string, beat], _ error) {
			return r, errors.New("heartbeats have no report")
		},
		Answer: func([]byte) ([]byte, error) {
			var answer ententev1.ListMembersResponse
			diverged, beats, v := divergence.list(), section.Received.All(), divergence.store.View()
			rows, err := Members.List(v, "")
			if err != nil {
				return nil, err
			}
			marked, err := Alive(v)
			if err != nil {
				return nil, err
			}
			led, until := earlier()
			for _, row := range rows {
				b, heard := beats[row.Key]
				m := &ententev1.Member{Id: row.Key, Diverged: slices.Contains(diverged, row.Key)}
				before := time.Time{}
				if row.Key == led {
					before = until
				}
				switch {
				case row.Key == divergence.self:
					b.at, m.Report = time.Now(), ownReport(divergence.store)
				case heard:
					m.Report = b.message(readClocks())
				}
				on, leading := slices.Contains(marked, row.Key), section.Received.Leadership().Since
				at := lastHeard(b.at, before, timeOf(row.Value.GetLastHeard()), leading, on)
				if !at.IsZero() {
					m.LastContact = timestamppb.New(at)
				}
				m.Alive = on && time.Since(at) < silentAfter
				answer.Members = append(answer.Members, m)
			}
			return proto.Marshal(&answer)
		},
		Now: time.Now,
	})
	return section
}

// currentTerm returns the term in which this member leads, and whether it does.
func (l *leader) currentTerm() (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term, l.term != 0
}

func (l *leader) setTerm(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term = term
}

func (l *leader) leads() bool {
	_, leads := l.currentTerm()
	return leads
}

// run does the leader's work during one term of leadership of this member.
func (l *leader) run(ctx context.Context) {
	l.sections.reset()
	term := l.store.Term()
	l.setTerm(term)
	defer l.setTerm(0)
	defer l.metrics.alive.Set(0)
	defer l.divergence.raise(nil)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { l.handovers.run(ctx) })
	watching.Go(func() { l.announceHealth(ctx, term) })
	watching.Go(func() { l.commitMoves(ctx) })
	watching.Go(func() { l.completeRemovals(ctx) })
	watching.Go(func() { l.mend(ctx) })
	tick := time.NewTicker(leaderTick)
	defer tick.Stop()
	var reached raftstore.Revision // what this member had applied a tick ago
	for {
		now := l.store.View()
		if err := l.reconcile(ctx, now, reached); err != nil && ctx.Err() == nil {
			l.log.Warn("the leader could not update the membership, and tries again", "error", err)
		}
		reached = now.Revision()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// receive takes over a heartbeat, and returns the distance of the member's clock from a majority's, if it is known.
func (l *leader) receive(id string, req *ententev1.HeartbeatRequest, now time.Time) (time.Duration, bool, error) {
	if term, leads := l.currentTerm(); !leads || term != req.GetTerm() {
		return 0, false, fmt.Errorf("heartbeat for term %d: %w", req.GetTerm(), raftstore.ErrNotLeader)
	}
	offset := req.GetClock().AsTime().Sub(now.Round(0))
	l.beats.Received.Set(id, beat{
		at: time.Now(), read: readClocks(), offset: offset, applied: raftstore.Revision(req.GetAppliedRevision()),
		digests: digestsOf(id, req), diskMedian: req.GetDiskMedian().AsDuration(), cannotWrite: req.GetCannotWrite(),
		electionTimeout: req.GetElectionTimeout().AsDuration(),
	})
	l.sections.deliver(id, req.GetSections())
	distance, known := l.distance(l.store.Servers().List(), id)
	return distance, known, nil
}

// digestsOf returns the digests in a heartbeat. They are the sender's, whatever they name.
func digestsOf(id string, req *ententev1.HeartbeatRequest) []*ententev1.StateDigest {
	digests := req.GetDigests()
	digests = digests[:min(len(digests), maxDigests)]
	for _, d := range digests {
		d.MemberId, d.Version = id, req.GetVersion()
	}
	return digests
}

// compare returns the digests at the newest index at which the members that are reachable do not agree.
func (l *leader) compare() []*ententev1.StateDigest {
	all, reachable := l.divergence.own(), l.reachable()
	for id, b := range l.beats.Received.All() {
		if id != l.self && reachable(id) {
			all = append(all, b.digests...)
		}
	}
	return disagreement(all)
}

// reachable returns a function that reports which members are reachable now: this one, and those with a recent
// heartbeat.
func (l *leader) reachable() func(id string) bool {
	beats, now := l.beats.Received.All(), time.Now()
	return func(id string) bool {
		b, ok := beats[id]
		return id == l.self || ok && now.Sub(b.at) < l.aliveTimeout
	}
}

// settled reports whether every member has had the time for a heartbeat since leadership began.
func (l *leader) settled() bool {
	return time.Since(l.beats.Received.Leadership().Since) >= l.aliveTimeout
}

// reconcile updates what the leader stores from the heartbeats.
func (l *leader) reconcile(ctx context.Context, v *raftstore.View, reached raftstore.Revision) error {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	rows, err := Members.List(v, "")
	if err != nil {
		return err
	}
	servers := l.store.Servers().List()
	l.judgeOwnClock(servers)
	at := l.compare()
	l.divergence.raise(at)
	l.divergence.judge(ctx, at)
	if len(rows) > 0 {
		lowest, _ := lowestCommandVersion(rows)
		l.store.AllowCommandVersion(lowest)
	}
	if err := l.mark(ctx, v, rows); err != nil {
		return err
	}
	return l.promote(ctx, servers, reached)
}

// mark stores which members are alive, if that has changed.
func (l *leader) mark(ctx context.Context, v *raftstore.View, rows []raftstore.Row[*statev1.Member]) error {
	var members []string
	for _, row := range rows {
		members = append(members, row.Key)
	}
	marked, err := Alive(v)
	if err != nil {
		return err
	}
	on, off := marks(members, marked, l.reachable(), l.settled())
	l.metrics.alive.Set(float64(len(marked)))
	if len(on)+len(off) == 0 {
		return nil
	}
	_, err = l.store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, id := range on {
			// The row may have been removed since; then there is no member to mark.
			if _, found, err := Members.Get(tx, id); err != nil || !found {
				return err
			}
			if err := alive.Put(tx, id, &statev1.AliveMember{Since: timestamppb.New(l.now())}); err != nil {
				return err
			}
		}
		for _, id := range off {
			if err := errors.Join(alive.Delete(tx, id), l.recordLastHeard(tx, id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		l.log.Info("the members that are alive have changed", "alive", on, "not_alive", off)
	}
	return err
}

// recordLastHeard writes into a member's row when it was last heard. It changes nothing if the member is removed.
func (l *leader) recordLastHeard(tx *raftstore.Tx, id string) error {
	row, found, err := Members.Get(tx, id)
	if err != nil || !found {
		return err
	}
	b, _ := l.beats.Received.Get(id)
	before := time.Time{}
	if led, until := l.earlier(); led == id {
		before = until
	}
	at := lastHeard(b.at, before, timeOf(row.Value.GetLastHeard()), l.beats.Received.Leadership().Since, true)
	row.Value.LastHeard = timestamppb.New(at)
	return Members.Put(tx, id, row.Value)
}

// timeOf returns a stored time; one that is not set is zero.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// promote gives the vote to members without one that have applied what the leader had applied a tick ago.
// None has it back while its repair or its removal is under way.
func (l *leader) promote(ctx context.Context, servers []raftstore.Server, reached raftstore.Revision) error {
	reachable := l.reachable()
	for _, s := range servers {
		b, _ := l.beats.Received.Get(s.MemberID)
		if s.Voter || !reachable(s.MemberID) || reached == 0 || b.applied < reached {
			continue
		}
		if !l.changing.TryLock() {
			return nil // a member is being added or removed
		}
		err := l.giveVote(ctx, s)
		l.changing.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// giveVote gives a member its vote, unless its repair or its removal has begun, or it is never to have one. The Raft
// configuration is not changed meanwhile.
func (l *leader) giveVote(ctx context.Context, s raftstore.Server) error {
	row, found, err := Members.Get(l.store.View(), s.MemberID)
	withheld := row.Value.GetRepair() != nil || row.Value.GetRemoveTime() != nil || row.Value.GetNonVoter()
	if err != nil || !found || withheld || !slices.Contains(l.store.Servers().List(), s) {
		return err
	}
	if err := l.store.Servers().AddVoter(ctx, s); err != nil {
		return err
	}
	l.log.Info("the member has caught up and has a vote now", "member", s.MemberID)
	return nil
}

// judgeOwnClock compares the leader's own clock with those of the heartbeats.
func (l *leader) judgeOwnClock(servers []raftstore.Server) {
	distance, known := l.distance(servers, l.self)
	if known || l.settled() {
		l.clock.judge(clockVerdict{known: known, distance: distance}, 0)
	}
}

// distance returns how far a member's clock is from a majority's.
func (l *leader) distance(servers []raftstore.Server, id string) (time.Duration, bool) {
	beats, reachable := l.beats.Received.All(), l.reachable()
	offsets := map[string]time.Duration{l.self: 0}
	now := readClocks()
	voters := 0
	for _, s := range servers {
		if !s.Voter {
			continue
		}
		voters++
		if b, ok := beats[s.MemberID]; ok && reachable(s.MemberID) {
			offsets[s.MemberID] = b.offsetNow(now)
		}
	}
	if _, ok := offsets[id]; !ok { // without a vote: its clock is compared, and does not count
		b, known := beats[id]
		if !known || len(offsets) < majority(voters) {
			return 0, false
		}
		offsets[id] = b.offsetNow(now)
		return clockDistance(offsets, id, voters+1)
	}
	return clockDistance(offsets, id, voters)
}
