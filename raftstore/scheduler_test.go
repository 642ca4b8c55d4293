package raftstore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// schedule is a scheduler with a state and a clock that the test moves.
type schedule struct {
	t         *testing.T
	scheduler *scheduler
	fsm       *transcript
	now       time.Time
	told      []string
	underway  map[string]*proposal
	abandoned map[string]bool
}

func newSchedule(t *testing.T) *schedule {
	return &schedule{
		t: t, scheduler: newScheduler(), fsm: &transcript{fsm: newFSM(func(err error) { t.Error(err) })},
		now: time.Unix(0, 0), underway: map[string]*proposal{}, abandoned: map[string]bool{},
	}
}

// add takes a command in. name is MEMBER/1/COUNTER; by names the transaction.
func (s *schedule) add(name, by string, rejections uint32, words string) {
	c := parseCommand(s.t, name, name+" "+words)
	raw, err := proto.Marshal(c)
	require.NoError(s.t, err)
	s.now = s.now.Add(time.Microsecond) // no two arrive at once
	require.True(s.t, s.scheduler.add(&proposal{
		key: keyOf(c.GetId()), command: c, raw: raw, by: commandKey{member: by}, rejections: rejections, arrived: s.now,
		abandoned: func() bool { return s.abandoned[name] },
		answers: []func(*ententev1.ProposeResponse){func(r *ententev1.ProposeResponse) {
			result := strings.ToLower(strings.TrimPrefix(r.GetResult().String(), "RESULT_"))
			s.told = append(s.told, fmt.Sprintf("%s %s@%d", name, result, r.GetRevision()))
		}},
	}))
}

// plan returns what is put into an entry and who is told what.
func (s *schedule) plan() string {
	entry, answers, _ := s.scheduler.plan(s.now, s.fsm.fsm.state())
	var names []string
	for _, p := range entry {
		name := fmt.Sprintf("%s/%d/%d", p.key.member, p.key.incarnation, p.key.counter)
		s.underway[name] = p
		names = append(names, name)
	}
	for _, a := range answers {
		a.to.answer(a.response)
	}
	got := "entry [" + strings.Join(names, " ") + "] told [" + strings.Join(s.told, ", ") + "]"
	s.told = nil
	return got
}

// applied has commands applied in an entry.
func (s *schedule) applied(index uint64, names ...string) {
	e := &statev1.Entry{Version: 1}
	var done []*proposal
	for _, name := range names {
		p := s.underway[name]
		require.NotNil(s.t, p, name)
		delete(s.underway, name)
		done = append(done, p)
		e.Commands = append(e.Commands, p.command)
	}
	s.apply(index, e)
	s.scheduler.done(done)
}

func (s *schedule) apply(index uint64, e *statev1.Entry) {
	f := s.fsm.fsm
	a := f.state().apply(f.db)
	a.entry(index, 1, e)
	next, _ := a.publish(f.db)
	f.published.Store(next)
}

func TestSchedulerGathersWhatDoesNotConflict(t *testing.T) {
	s := newSchedule(t)
	s.add("m/1/1", "t1", 0, "read=a@0 put=a:1")
	s.add("m/1/2", "t2", 0, "read=b@0 put=b:1")
	s.add("m/1/3", "t3", 0, "read=a@0 put=a:2")
	s.add("m/1/4", "t4", 0, "put=a:3")
	require.Equal(t, "entry [m/1/1 m/1/2 m/1/4] told []", s.plan(), "3 has read what 1 writes, and waits; 4 has read nothing")
	s.applied(5, "m/1/1", "m/1/2", "m/1/4")
	require.Equal(t, "entry [] told [m/1/3 conflict@5]", s.plan(), "3 is bound to fail: it is told before it costs an entry")
	require.Equal(t, "entry [] told []", s.plan())
}

func TestSchedulerWaitsForTheStateThatWasRead(t *testing.T) {
	s := newSchedule(t)
	s.add("m/1/1", "t1", 0, "base=7 read=a@7 put=a:1")
	require.Equal(t, "entry [] told []", s.plan(), "the member that read is ahead of the leader's own state")
	s.apply(7, &statev1.Entry{Version: 1, Commands: []*statev1.Command{parseCommand(t, "", "o/1/1 put=a:0")}})
	require.Equal(t, "entry [m/1/1] told []", s.plan())
}

func TestSchedulerJoinsWhatIsSentAgain(t *testing.T) {
	s := newSchedule(t)
	s.add("m/1/1", "t1", 0, "put=a:1")
	require.Equal(t, "entry [m/1/1] told []", s.plan())
	s.add("m/1/1", "t1", 0, "put=a:1")
	require.Equal(t, "entry [] told []", s.plan(), "it is under way already")
	p := s.underway["m/1/1"]
	s.applied(4, "m/1/1")
	p.answer(respond(outcome{applied: true, revision: 4}))
	s.add("m/1/1", "t1", 0, "put=a:1")
	require.Equal(t, "entry [] told [m/1/1 applied@4, m/1/1 applied@4, m/1/1 applied@4]", s.plan(), "both callers, and who asks later")
}

func TestSchedulerKeepsKeysForWhoWasRejectedAgain(t *testing.T) {
	s := newSchedule(t)
	s.apply(3, &statev1.Entry{Version: 1, Commands: []*statev1.Command{parseCommand(t, "", "o/1/1 put=a:0")}})
	s.add("m/1/1", "first", 1, "read=a@1 put=a:1")
	s.add("m/1/2", "second", 1, "read=a@2 put=a:2")
	require.Equal(t, "entry [] told [m/1/1 conflict@3]", s.plan(), "the first has its turn; the second stands in line")
	s.add("m/1/3", "other", 0, "read=a@3 put=a:9")
	s.add("m/1/4", "other", 0, "put=b:9")
	require.Equal(t, "entry [m/1/4] told []", s.plan(), "nobody else writes the key, anything else goes on")
	s.add("m/1/5", "first", 2, "read=a@3 put=a:1")
	require.Equal(t, "entry [m/1/5] told []", s.plan())
	s.applied(4, "m/1/4", "m/1/5")
	require.Equal(t, "entry [] told [m/1/3 conflict@4, m/1/2 conflict@4]", s.plan(), "the next in line is told as soon as the key is free")
	s.add("m/1/6", "other", 0, "put=a:9")
	s.now = s.now.Add(holdTime - 2*time.Microsecond)
	require.Equal(t, "entry [] told []", s.plan(), "it is kept for the second now")
	s.now = s.now.Add(time.Microsecond)
	require.Equal(t, "entry [m/1/6] told []", s.plan(), "and no longer than holdTime")
}

func TestSchedulerLetsWritersThroughBetweenHolds(t *testing.T) {
	s := newSchedule(t)
	s.apply(3, &statev1.Entry{Version: 1, Commands: []*statev1.Command{parseCommand(t, "", "o/1/1 put=a:0")}})
	s.add("m/1/1", "first", 1, "read=a@1 put=a:1")
	require.Equal(t, "entry [] told [m/1/1 conflict@3]", s.plan())
	s.add("m/1/2", "writer", 0, "put=a:2")
	s.add("m/1/3", "second", 1, "read=a@1 put=a:3")
	require.Equal(t, "entry [] told []", s.plan())
	s.now = s.now.Add(holdTime)
	require.Equal(t, "entry [m/1/2] told []", s.plan(), "the writer came before the second")
	s.applied(4, "m/1/2")
	require.Equal(t, "entry [] told [m/1/3 conflict@4]", s.plan())
}

func TestSchedulerDropsWhatNobodyWaitsFor(t *testing.T) {
	s := newSchedule(t)
	s.apply(3, &statev1.Entry{Version: 1, Commands: []*statev1.Command{parseCommand(t, "", "o/1/1 put=a:0")}})
	s.add("m/1/1", "first", 1, "read=a@1 put=a:1")
	s.add("m/1/2", "gone", 1, "read=a@1 put=a:2")
	s.add("m/1/3", "third", 1, "read=a@1 put=a:3")
	require.Equal(t, "entry [] told [m/1/1 conflict@3]", s.plan())
	s.abandoned["m/1/2"] = true
	s.add("m/1/4", "first", 2, "read=a@3 put=a:1")
	require.Equal(t, "entry [m/1/4] told [m/1/2 conflict@3]", s.plan())
	s.applied(4, "m/1/4")
	require.Equal(t, "entry [] told [m/1/3 conflict@4]", s.plan(), "no turn is lost on who has gone")
}

func TestSchedulerFillsEntriesToTheLimit(t *testing.T) {
	s := newSchedule(t)
	large := strings.Repeat("x", maxCommand/3)
	for i := range 5 {
		s.add(fmt.Sprintf("m/1/%d", i+1), "t", 0, fmt.Sprintf("put=k%d:%s", i, large))
	}
	require.Equal(t, "entry [m/1/1 m/1/2] told []", s.plan())
	require.Equal(t, "entry [m/1/3 m/1/4] told []", s.plan())
	require.Equal(t, "entry [m/1/5] told []", s.plan())
}

func TestSchedulerIsBounded(t *testing.T) {
	s := newSchedule(t)
	for i := range maxWaiting {
		s.add(fmt.Sprintf("m/1/%d", i+1), "t", 0, "base=9 read=a@9 put=a:1")
	}
	c := parseCommand(t, "", "m/1/99999 put=a:1")
	require.False(t, s.scheduler.add(&proposal{key: keyOf(c.GetId()), command: c}))
	s.now = s.now.Add(longestWait + time.Second)
	require.Contains(t, s.plan(), "m/1/1 busy@0")
	require.Empty(t, s.scheduler.known)
}

func TestSchedulerDrains(t *testing.T) {
	s := newSchedule(t)
	s.apply(3, &statev1.Entry{Version: 1, Commands: []*statev1.Command{parseCommand(t, "", "o/1/1 put=a:0")}})
	s.add("m/1/1", "first", 1, "read=a@1 put=a:1")
	s.add("m/1/2", "second", 1, "read=a@2 put=a:2")
	s.plan()
	s.add("m/1/3", "third", 0, "put=a:3")
	s.plan()
	require.Len(t, s.scheduler.drain(), 2, "one in line and one that waits; the first was told")
	require.Empty(t, s.scheduler.known)
	require.Empty(t, s.scheduler.holds)
}
