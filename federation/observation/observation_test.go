package observation

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/relationship"
)

func TestObservationsTravelAsAges(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	ownerClock, leaderClock := start, start.Add(3*time.Hour) // the clocks disagree
	owner := New(func() time.Time { return ownerClock })
	leader := New(func() time.Time { return leaderClock })
	require.Nil(t, owner.Collect(true), "nothing to tell")

	owner.Planned("us.example.org", 7, ownerClock.Add(time.Minute), time.Minute)
	owner.Attempted("us.example.org", 7, ownerClock.Add(-10*time.Second), true, "unchanged", "")
	report := owner.Collect(false)
	require.NotNil(t, report)
	require.Nil(t, owner.Collect(false), "told once")
	leader.Deliver("eu-1", report)

	require.Equal(t, leaderClock.Add(-10*time.Second), leader.Success("us.example.org"))
	seen := ask(t, leader, "us.example.org")[0]
	require.Equal(t, "eu-1", seen.GetMember())
	require.Equal(t, 10*time.Second, seen.GetSinceSuccess().AsDuration())
	require.Equal(t, time.Minute, seen.GetUntilNext().AsDuration())

	// A new leader starts empty, and receives everything again.
	leader.Reset()
	require.Empty(t, ask(t, leader, "us.example.org"))
	ownerClock, leaderClock = ownerClock.Add(time.Minute), leaderClock.Add(time.Minute)
	leader.Deliver("eu-1", owner.Collect(true))
	require.Equal(t, 70*time.Second, ask(t, leader, "us.example.org")[0].GetSinceSuccess().AsDuration())

	leader.Sweep(func(string) bool { return false })
	require.Empty(t, ask(t, leader, ""))
}

func TestObservationsOfTwoMembers(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	leader := New(clock)
	owner, other := New(clock), New(clock)
	owner.Planned("us.example.org", 1, now.Add(time.Hour), time.Hour)
	owner.Attempted("us.example.org", 1, now.Add(-time.Minute), false, "timeout", "took too long")
	other.Attempted("us.example.org", 1, now.Add(-time.Second), true, "unchanged", "")
	leader.Deliver("eu-2", other.Collect(false))
	leader.Deliver("eu-1", owner.Collect(false))
	seen := ask(t, leader, "us.example.org")[0]
	require.Equal(t, "eu-2", seen.GetMember(), "the latest attempt counts, whoever made it")
	require.Equal(t, "unchanged", seen.GetResult())
	require.Equal(t, time.Second, seen.GetSinceSuccess().AsDuration())
	require.Equal(t, time.Hour, seen.GetUntilNext().AsDuration(), "the owner alone knows of the next turn")
	require.Nil(t, other.Collect(true), "who fetched by hand tells it once")

	// A member that does not own a relationship reports what its stream confirmed to the next leader too.
	other.Attempted("us.example.org", 1, now, true, relationship.ResultConfirmed, "")
	leader.Deliver("eu-2", other.Collect(false))
	leader.Reset()
	leader.Deliver("eu-1", owner.Collect(true))
	require.Zero(t, leader.Success("us.example.org"))
	leader.Deliver("eu-2", other.Collect(true))
	require.Equal(t, now, leader.Success("us.example.org"))
	other.Ended("us.example.org")
	require.Nil(t, other.Collect(true))
}

func TestObservationsGoInParts(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	owner, leader := New(clock), New(clock)
	const count = 2*maxAnswer + 10
	for i := range count {
		name := fmt.Sprintf("d%05d.example.org", i)
		owner.Planned(name, 1, now, time.Minute)
		owner.Attempted(name, 1, now, false, "network", string(make([]byte, 5000)))
	}
	beats := 0
	for report := owner.Collect(true); report != nil; report = owner.Collect(false) {
		require.Less(t, len(report), 1<<20)
		leader.Deliver("eu-1", report)
		beats++
	}
	require.Equal(t, (count+MaxReport-1)/MaxReport, beats)
	seen := map[string]bool{}
	for _, o := range ask(t, leader, "") {
		seen[o.GetTrustDomain()] = true
	}
	require.Len(t, seen, count)
}

func ask(t *testing.T, leader *Section, name string) (all []*statev1.RelationshipObservation) {
	t.Helper()
	query := &statev1.RelationshipQuery{TrustDomain: name}
	for {
		encoded, err := proto.Marshal(query)
		require.NoError(t, err)
		reply, err := leader.Answer(encoded)
		require.NoError(t, err)
		require.Less(t, len(reply), 2<<20)
		answer := &statev1.RelationshipAnswer{}
		require.NoError(t, proto.Unmarshal(reply, answer))
		all = append(all, answer.GetObservations()...)
		if !answer.GetMore() {
			return all
		}
		query.After = all[len(all)-1].GetTrustDomain()
	}
}

// FuzzObservations: no report and no query of another member brings the leader down, or makes a success lie in the
// future.
func FuzzObservations(f *testing.F) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	owner := New(func() time.Time { return now })
	owner.Planned("us.example.org", 1, now, time.Minute)
	owner.Attempted("us.example.org", 1, now, true, "stored", "")
	f.Add(owner.Collect(true))
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		leader := New(func() time.Time { return now })
		leader.Deliver("eu-1", data)
		for name := range leader.Received.All() {
			require.False(t, leader.Success(name).After(now))
		}
		if answer, err := leader.Answer(data); err == nil {
			require.NoError(t, proto.Unmarshal(answer, &statev1.RelationshipAnswer{}))
		}
	})
}
