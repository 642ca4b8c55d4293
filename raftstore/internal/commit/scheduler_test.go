package commit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
	"github.com/ententehq/entente/raftstore/internal/machine/machinetest"
)

// schedule is a scheduler with a state and a clock that the test controls.
type schedule struct {
	t         *testing.T
	scheduler *scheduler
	machine   *machine.Machine
	now       time.Time
	answered  []string
	underway  map[string]*proposal
	abandoned map[string]bool
}

func newSchedule(t *testing.T) *schedule {
	return &schedule{
		t: t, scheduler: newScheduler(), machine: machine.New(func(err error) { t.Error(err) }, func() {}),
		now: time.Unix(0, 0), underway: map[string]*proposal{}, abandoned: map[string]bool{},
	}
}

// add adds a command. name is MEMBER/1/COUNTER; by names the transaction.
func (s *schedule) add(name, by string, rejections uint32, words string) {
	c := machinetest.Command(s.t, name, name+" "+words)
	raw, err := proto.Marshal(c)
	require.NoError(s.t, err)
	s.now = s.now.Add(time.Microsecond) // no two arrive at once
	require.True(s.t, s.scheduler.add(&proposal{
		key: keyOf(c.GetId()), command: c, raw: raw, by: commandKey{member: by}, rejections: rejections, arrived: s.now,
		abandoned: func() bool { return s.abandoned[name] },
		answers: []func(*ententev1.ProposeResponse){func(r *ententev1.ProposeResponse) {
			result := strings.ToLower(strings.TrimPrefix(r.GetResult().String(), "RESULT_"))
			s.answered = append(s.answered, fmt.Sprintf("%s %s@%d", name, result, r.GetRevision()))
		}},
	}))
}

// plan returns the commands of the next entry, and the answers.
func (s *schedule) plan() string {
	entry, answers, _ := s.scheduler.plan(s.now, s.machine.State())
	var names []string
	for _, p := range entry {
		name := fmt.Sprintf("%s/%d/%d", p.key.member, p.key.incarnation, p.key.counter)
		s.underway[name] = p
		names = append(names, name)
	}
	for _, a := range answers {
		a.to.answer(a.response)
	}
	got := "entry [" + strings.Join(names, " ") + "] answered [" + strings.Join(s.answered, ", ") + "]"
	s.answered = nil
	return got
}

// applied applies commands in an entry.
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
	raw, err := proto.Marshal(e)
	require.NoError(s.t, err)
	s.machine.Apply(&raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: raw})
}

func TestSchedulerGathersWhatDoesNotConflict(t *testing.T) {
	s := newSchedule(t)
	s.add("m/1/1", "t1", 0, "read=a@0 put=a:1")
	s.add("m/1/2", "t2", 0, "read=b@0 put=b:1")
	s.add("m/1/3", "t3", 0, "read=a@0 put=a:2")
	s.add("m/1/4", "t4", 0, "put=a:3")
	require.Equal(
		t,
		"entry [m/1/1 m/1/2 m/1/4] answered []",
		s.plan(),
		"3 has read what 1 writes, and waits; 4 has read nothing",
	)
	s.applied(5, "m/1/1", "m/1/2", "m/1/4")
	require.Equal(
		t,
		"entry [] answered [m/1/3 conflict@5]",
		s.plan(),
		"3 is bound to fail: it is rejected before it costs an entry",
	)
	require.Equal(t, "entry [] answered []", s.plan())
}

func TestSchedulerWaitsForTheStateThatWasRead(t *testing.T) {
	s := newSchedule(t)
	s.add("m/1/1", "t1", 0, "base=7 read=a@7 put=a:1")
	require.Equal(t, "entry [] answered []", s.plan(), "the member that read is ahead of the leader's own state")
	s.apply(7, &statev1.Entry{Version: 1, Commands: []*statev1.Command{machinetest.Command(t, "", "o/1/1 put=a:0")}})
	require.Equal(t, "entry [m/1/1] answered []", s.plan())
}

func TestSchedulerMergesRepeatedSends(t *testing.T) {
	s := newSchedule(t)
	s.add("m/1/1", "t1", 0, "put=a:1")
	require.Equal(t, "entry [m/1/1] answered []", s.plan())
	s.add("m/1/1", "t1", 0, "put=a:1")
	require.Equal(t, "entry [] answered []", s.plan(), "it is under way already")
	p := s.underway["m/1/1"]
	s.applied(4, "m/1/1")
	p.answer(respond(machine.Outcome{Applied: true, Revision: 4}))
	s.add("m/1/1", "t1", 0, "put=a:1")
	require.Equal(
		t,
		"entry [] answered [m/1/1 applied@4, m/1/1 applied@4, m/1/1 applied@4]",
		s.plan(),
		"both callers, and one that comes later",
	)
}

func TestSchedulerReservesKeysAfterASecondRejection(t *testing.T) {
	s := newSchedule(t)
	s.apply(3, &statev1.Entry{Version: 1, Commands: []*statev1.Command{machinetest.Command(t, "", "o/1/1 put=a:0")}})
	s.add("m/1/1", "first", 1, "read=a@1 put=a:1")
	s.add("m/1/2", "second", 1, "read=a@2 put=a:2")
	require.Equal(
		t,
		"entry [] answered [m/1/1 conflict@3]",
		s.plan(),
		"the first has its turn; the second stands in line",
	)
	s.add("m/1/3", "other", 0, "read=a@3 put=a:9")
	s.add("m/1/4", "other", 0, "put=b:9")
	require.Equal(
		t,
		"entry [m/1/4] answered []",
		s.plan(),
		"no other transaction writes the key; everything else goes on",
	)
	s.add("m/1/5", "first", 2, "read=a@3 put=a:1")
	require.Equal(t, "entry [m/1/5] answered []", s.plan())
	s.applied(4, "m/1/4", "m/1/5")
	require.Equal(
		t,
		"entry [] answered [m/1/3 conflict@4, m/1/2 conflict@4]",
		s.plan(),
		"the next in line is answered as soon as the key is free",
	)
	s.add("m/1/6", "other", 0, "put=a:9")
	s.now = s.now.Add(reservationTime - 2*time.Microsecond)
	require.Equal(t, "entry [] answered []", s.plan(), "it is reserved for the second now")
	s.now = s.now.Add(time.Microsecond)
	require.Equal(t, "entry [m/1/6] answered []", s.plan(), "and no longer than reservationTime")
}

func TestSchedulerLetsWritersThroughBetweenReservations(t *testing.T) {
	s := newSchedule(t)
	s.apply(3, &statev1.Entry{Version: 1, Commands: []*statev1.Command{machinetest.Command(t, "", "o/1/1 put=a:0")}})
	s.add("m/1/1", "first", 1, "read=a@1 put=a:1")
	require.Equal(t, "entry [] answered [m/1/1 conflict@3]", s.plan())
	s.add("m/1/2", "writer", 0, "put=a:2")
	s.add("m/1/3", "second", 1, "read=a@1 put=a:3")
	require.Equal(t, "entry [] answered []", s.plan())
	s.now = s.now.Add(reservationTime)
	require.Equal(t, "entry [m/1/2] answered []", s.plan(), "the writer came before the second")
	s.applied(4, "m/1/2")
	require.Equal(t, "entry [] answered [m/1/3 conflict@4]", s.plan())
}

func TestSchedulerDropsAbandonedCommands(t *testing.T) {
	s := newSchedule(t)
	s.apply(3, &statev1.Entry{Version: 1, Commands: []*statev1.Command{machinetest.Command(t, "", "o/1/1 put=a:0")}})
	s.add("m/1/1", "first", 1, "read=a@1 put=a:1")
	s.add("m/1/2", "gone", 1, "read=a@1 put=a:2")
	s.add("m/1/3", "third", 1, "read=a@1 put=a:3")
	require.Equal(t, "entry [] answered [m/1/1 conflict@3]", s.plan())
	s.abandoned["m/1/2"] = true
	s.add("m/1/4", "first", 2, "read=a@3 put=a:1")
	require.Equal(t, "entry [m/1/4] answered [m/1/2 conflict@3]", s.plan())
	s.applied(4, "m/1/4")
	require.Equal(t, "entry [] answered [m/1/3 conflict@4]", s.plan(), "no turn is lost on a caller that has gone")
}

func TestSchedulerFillsEntriesToTheLimit(t *testing.T) {
	s := newSchedule(t)
	large := strings.Repeat("x", machine.MaxCommand/3)
	for i := range 5 {
		s.add(fmt.Sprintf("m/1/%d", i+1), "t", 0, fmt.Sprintf("put=k%d:%s", i, large))
	}
	require.Equal(t, "entry [m/1/1 m/1/2] answered []", s.plan())
	require.Equal(t, "entry [m/1/3 m/1/4] answered []", s.plan())
	require.Equal(t, "entry [m/1/5] answered []", s.plan())
}

func TestSchedulerIsBounded(t *testing.T) {
	s := newSchedule(t)
	for i := range maxWaiting {
		s.add(fmt.Sprintf("m/1/%d", i+1), "t", 0, "base=9 read=a@9 put=a:1")
	}
	c := machinetest.Command(t, "", "m/1/99999 put=a:1")
	require.False(t, s.scheduler.add(&proposal{key: keyOf(c.GetId()), command: c}))
	s.now = s.now.Add(LongestWait + time.Second)
	require.Contains(t, s.plan(), "m/1/1 busy@0")
	require.Empty(t, s.scheduler.known)
}

func TestSchedulerDrains(t *testing.T) {
	s := newSchedule(t)
	s.apply(3, &statev1.Entry{Version: 1, Commands: []*statev1.Command{machinetest.Command(t, "", "o/1/1 put=a:0")}})
	s.add("m/1/1", "first", 1, "read=a@1 put=a:1")
	s.add("m/1/2", "second", 1, "read=a@2 put=a:2")
	s.plan()
	s.add("m/1/3", "third", 0, "put=a:3")
	s.plan()
	require.Len(t, s.scheduler.drain(), 2, "one in line and one that waits; the first was answered")
	require.Empty(t, s.scheduler.known)
	require.Empty(t, s.scheduler.reservations)
}
