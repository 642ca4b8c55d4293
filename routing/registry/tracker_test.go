package registry

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

func at(second int) time.Time { return routingtest.Epoch.Add(time.Duration(second) * time.Second) }

func leaseNamed(n byte) string { return fmt.Sprintf("%016x", n) }

// testTracker is a tracker with a clock that the test sets.
type testTracker struct {
	*Tracker
	clock time.Time
}

func newTestTracker() *testTracker {
	t := &testTracker{clock: at(0)}
	t.Tracker = newTracker(Config{Now: func() time.Time { return t.clock }, Logger: hclog.NewNullLogger()})
	return t
}

// dueAt returns the leases that are due at a second.
func (t *testTracker) dueAt(table []trackedLease, second int) (expiring, gone []trackedLease) {
	t.clock = at(second)
	return t.due(table)
}

// deliverAt delivers the report of a renewal of lease 1 that was taken a while before.
func (t *testTracker) deliverAt(second int, age time.Duration) {
	t.clock = at(second)
	t.Deliver("eu-1", encodeReport(&statev1.Renewal{Lease: leaseNamed(1), Age: durationpb.New(age)}))
}

func encodeReport(renewals ...*statev1.Renewal) []byte {
	b, err := proto.Marshal(&statev1.LeaseReport{Renewals: renewals})
	if err != nil {
		panic(err)
	}
	return b
}

func TestTracker(t *testing.T) {
	one := []trackedLease{{id: leaseNamed(1), ttl: 10 * time.Second}}
	// The leader checks the table each second. Reports are delivered before the check.
	for _, test := range []struct {
		name    string
		deliver map[int]time.Duration
		asleep  func(second int) bool
		expires int
	}{
		{"never renewed: counts from the first check", nil, nil, 14},
		{"renewed once", map[int]time.Duration{5: 0}, nil, 19},
		{"renewed a while before the report", map[int]time.Duration{5: 2 * time.Second}, nil, 17},
		{"an older report after a newer one", map[int]time.Duration{5: 0, 6: 4 * time.Second}, nil, 19},
		{"renewed at the last moment", map[int]time.Duration{13: time.Second}, nil, 26},
		{"the leader sleeps for twenty seconds", nil, func(s int) bool { return s > 4 && s < 25 }, 35},
	} {
		t.Run(test.name, func(t *testing.T) {
			tracker := newTestTracker()
			for second := range 60 {
				if test.asleep != nil && test.asleep(second) {
					continue
				}
				if age, ok := test.deliver[second]; ok {
					tracker.deliverAt(second, age)
				}
				if expiring, gone := tracker.dueAt(one, second); len(expiring) > 0 {
					require.Empty(t, gone)
					require.Equal(t, one, expiring)
					require.Equal(t, test.expires, second)
					return
				}
			}
			t.Fatal("the lease never ran out")
		})
	}

	t.Run("a new leader grants a whole ttl", func(t *testing.T) {
		tracker := newTestTracker()
		require.Empty(t, expiredBetween(tracker, one, 0, 0))
		tracker.Reset()
		require.Empty(t, expiredBetween(tracker, one, 12, 12))
		require.Empty(t, expiredBetween(tracker, one, 15, 15))
		require.NotEmpty(t, expiredBetween(tracker, one, 16, 26))
	})
	t.Run("gone a while after it ran out, and a new leader starts again", func(t *testing.T) {
		tracker := newTestTracker()
		table := []trackedLease{
			{id: leaseNamed(1), ttl: 10 * time.Second, removalDelay: 5 * time.Second, expired: true},
		}
		for second, want := range []int{0, 0, 0, 0, 0, 1} {
			expiring, gone := tracker.dueAt(table, second)
			require.Empty(t, expiring)
			require.Len(t, gone, want, "second %d", second)
		}
		tracker.Reset()
		_, gone := tracker.dueAt(table, 6)
		require.Empty(t, gone)
	})
	t.Run("leases that are not in the table are forgotten", func(t *testing.T) {
		tracker := newTestTracker()
		tracker.deliverAt(0, 0)
		tracker.dueAt(one, 0)
		require.Len(t, tracker.Received.All(), 1)
		tracker.dueAt(nil, 1)
		require.Empty(t, tracker.renewed)
		require.Empty(t, tracker.Received.All())
	})
	t.Run("reports that no member sends", func(t *testing.T) {
		tracker := newTestTracker()
		tracker.deliverAt(0, -time.Second)
		tracker.deliverAt(0, MaxTTL*2)
		tracker.Deliver("eu-1", encodeReport(&statev1.Renewal{Lease: "short"}))
		require.Empty(t, tracker.Received.All())
	})
}

func expiredBetween(tracker *testTracker, table []trackedLease, from, to int) (expired []trackedLease) {
	for second := from; second <= to; second++ {
		expiring, _ := tracker.dueAt(table, second)
		expired = append(expired, expiring...)
	}
	return expired
}

// TestRenewedLeasesStay: a lease that is renewed at some member at least once a ttl never runs out, whichever
// heartbeats are lost one at a time.
func TestRenewedLeasesStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const ttl = 10
		leader := newTestTracker()
		members := []*testTracker{newTestTracker(), newTestTracker(), newTestTracker()}
		table := []trackedLease{{id: leaseNamed(1), ttl: ttl * time.Second}}
		next := rapid.IntRange(0, ttl).Draw(t, "first renewal")
		lost := [3]bool{}
		for second := range 120 {
			leader.clock = at(second)
			for _, m := range members {
				m.clock = at(second)
			}
			if second == next {
				members[rapid.IntRange(0, 2).Draw(t, "member")].renew(leaseNamed(1), ttl*time.Second)
				next += rapid.IntRange(1, ttl).Draw(t, "until next")
			}
			for i, m := range members {
				// After a heartbeat that was lost, a member reports everything.
				report := m.Collect(lost[i])
				lost[i] = !lost[i] && rapid.Bool().Draw(t, "lost")
				if report != nil && !lost[i] {
					leader.Deliver(fmt.Sprint(i), report)
				}
			}
			if rapid.IntRange(0, 30).Draw(t, "new leader") == 0 {
				leader.Reset()
				for i, m := range members {
					if report := m.Collect(true); report != nil {
						leader.Deliver(fmt.Sprint(i), report)
					}
				}
			}
			expiring, _ := leader.due(table)
			require.Empty(t, expiring, "second %d", second)
		}
	})
}

func TestRenewalReports(t *testing.T) {
	tracker := newTestTracker()
	report := func(full bool, second int) []string {
		tracker.clock = at(second)
		var m statev1.LeaseReport
		require.NoError(t, proto.Unmarshal(tracker.Collect(full), &m))
		var renewals []string
		for _, r := range m.GetRenewals() {
			renewals = append(renewals, fmt.Sprintf("%s %s", r.GetLease()[14:], r.GetAge().AsDuration()))
		}
		return renewals
	}
	require.Empty(t, report(true, 0))
	tracker.renew(leaseNamed(1), 10*time.Second)
	require.Equal(t, []string{"01 1s"}, report(false, 1))
	require.Empty(t, report(false, 3))
	require.Equal(t, []string{"01 4s"}, report(true, 4), "a new leader receives everything")
	tracker.clock = at(9)
	tracker.renew(leaseNamed(2), 5*time.Second)
	require.ElementsMatch(t, []string{"02 1s"}, report(false, 10))
	require.Equal(t, []string{"02 5s"}, report(true, 14), "a lease that has run out is not reported")
	require.Empty(t, report(true, 20))
}

func TestTrackerRefusesGarbage(t *testing.T) {
	tracker := newTestTracker()
	require.Nil(t, tracker.Collect(true))
	tracker.Deliver("eu-1", []byte{0xff})
	require.Empty(t, tracker.Received.Members())
	_, err := tracker.Answer(nil)
	require.EqualError(t, err, "section leases does not answer queries")
}

func FuzzDeliver(f *testing.F) {
	f.Add(encodeReport(&statev1.Renewal{Lease: leaseNamed(1), Age: durationpb.New(time.Second)}))
	f.Fuzz(func(t *testing.T, report []byte) {
		tracker := newTestTracker()
		tracker.Deliver("eu-1", report)
		for lease, renewed := range tracker.Received.All() {
			require.Len(t, lease, 2*leaseIDSize)
			require.False(t, renewed.at.After(tracker.clock))
		}
	})
}
