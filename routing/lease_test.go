package routing

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

func leaseNamed(n byte) string { return fmt.Sprintf("%016x", n) }

func TestLedger(t *testing.T) {
	one := []held{{lease: leaseNamed(1), ttl: 10 * time.Second}}
	report := func(age time.Duration) *statev1.LeaseReport {
		return &statev1.LeaseReport{Renewals: []*statev1.Renewal{{Lease: leaseNamed(1), Age: durationpb.New(age)}}}
	}
	// A step is a look at the table each second, with what is delivered before it.
	for _, test := range []struct {
		name    string
		deliver map[int]time.Duration
		asleep  func(second int) bool
		lapses  int
	}{
		{"never renewed: from the first sight", nil, nil, 14},
		{"renewed once", map[int]time.Duration{5: 0}, nil, 19},
		{"renewed a while ago when the report came", map[int]time.Duration{5: 2 * time.Second}, nil, 17},
		{"an older report after a newer one", map[int]time.Duration{5: 0, 6: 4 * time.Second}, nil, 19},
		{"renewed in the last moment", map[int]time.Duration{13: time.Second}, nil, 26},
		{"the leader sleeps for twenty seconds", nil, func(s int) bool { return s > 4 && s < 25 }, 35},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLedger()
			for second := range 60 {
				if test.asleep != nil && test.asleep(second) {
					continue
				}
				if age, ok := test.deliver[second]; ok {
					require.NoError(t, l.deliver(report(age), at(float64(second))))
				}
				if lapsed, gone := l.due(one, at(float64(second))); len(lapsed) > 0 {
					require.Empty(t, gone)
					require.Equal(t, one, lapsed)
					require.Equal(t, test.lapses, second)
					return
				}
			}
			t.Fatal("never lapsed")
		})
	}

	t.Run("a new leader gives a whole ttl", func(t *testing.T) {
		l := newLedger()
		require.Empty(t, lapsedEachSecond(l, one, 0, 0))
		l.reset()
		require.Empty(t, lapsedEachSecond(l, one, 12, 12))
		require.Empty(t, lapsedEachSecond(l, one, 15, 15))
		require.NotEmpty(t, lapsedEachSecond(l, one, 16, 26))
	})
	t.Run("gone a while after it ran out, and a new leader counts anew", func(t *testing.T) {
		l := newLedger()
		table := []held{{lease: leaseNamed(1), ttl: 10 * time.Second, goneAfter: 5 * time.Second, lapsed: true}}
		for second, want := range []int{0, 0, 0, 0, 0, 1} {
			lapsed, gone := l.due(table, at(float64(second)))
			require.Empty(t, lapsed)
			require.Len(t, gone, want, "second %d", second)
		}
		l.reset()
		_, gone := l.due(table, at(6))
		require.Empty(t, gone)
	})
	t.Run("what is held no more is forgotten", func(t *testing.T) {
		l := newLedger()
		l.due(one, at(0))
		l.due(nil, at(1))
		require.Empty(t, l.renewed)
	})
	t.Run("reports that no member sends", func(t *testing.T) {
		l := newLedger()
		require.NoError(t, l.deliver(report(-time.Second), at(0)))
		require.NoError(t, l.deliver(report(MaxTTL*2), at(0)))
		require.NoError(t, l.deliver(&statev1.LeaseReport{Renewals: []*statev1.Renewal{{Lease: "short"}}}, at(0)))
		require.Empty(t, l.renewed)
	})
}

func lapsedEachSecond(l *ledger, table []held, from, to int) []held {
	var out []held
	for s := from; s <= to; s++ {
		lapsed, _ := l.due(table, at(float64(s)))
		out = append(out, lapsed...)
	}
	return out
}

// A lease that is renewed somewhere at least once a ttl is never removed, whichever heartbeats are lost one at a time.
func TestRenewedLeasesStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const ttl = 10
		now := at(0)
		members := []*LeaseSection{}
		l := newLedger()
		for range 3 {
			members = append(members, &LeaseSection{renewals: newRenewals(), ledger: l, now: func() time.Time { return now }, refused: func(member string, err error) { t.Fatalf("%s: %v", member, err) }})
		}
		table := []held{{lease: leaseNamed(1), ttl: ttl * time.Second}}
		next := rapid.IntRange(0, ttl).Draw(t, "first renewal")
		lost := [3]bool{}
		for second := range 120 {
			now = at(float64(second))
			if second == next {
				members[rapid.IntRange(0, 2).Draw(t, "member")].renewals.renew(leaseNamed(1), ttl*time.Second, now)
				next += rapid.IntRange(1, ttl).Draw(t, "until next")
			}
			for i, m := range members {
				// After a heartbeat that was lost, a member reports everything.
				report := m.Collect(lost[i])
				lost[i] = !lost[i] && rapid.Bool().Draw(t, "lost")
				if report != nil && !lost[i] {
					m.Deliver(fmt.Sprint(i), report)
				}
			}
			if rapid.IntRange(0, 30).Draw(t, "new leader") == 0 {
				members[0].Reset()
				for i, m := range members {
					if b := m.Collect(true); b != nil {
						m.Deliver(fmt.Sprint(i), b)
					}
				}
			}
			lapsed, _ := l.due(table, now)
			require.Empty(t, lapsed, "second %d", second)
		}
	})
}

func TestReports(t *testing.T) {
	r := newRenewals()
	names := func(full bool, now time.Time) []string {
		var out []string
		for _, renewal := range r.report(full, now).GetRenewals() {
			out = append(out, fmt.Sprintf("%s %s", renewal.GetLease()[14:], renewal.GetAge().AsDuration()))
		}
		return out
	}
	require.Empty(t, names(true, at(0)))
	r.renew(leaseNamed(1), 10*time.Second, at(0))
	require.Equal(t, []string{"01 1s"}, names(false, at(1)))
	require.Empty(t, names(false, at(3)))
	require.Equal(t, []string{"01 4s"}, names(true, at(4)), "a new leader is told everything")
	r.renew(leaseNamed(2), 5*time.Second, at(9))
	require.ElementsMatch(t, []string{"02 1s"}, names(false, at(10)))
	require.Equal(t, []string{"02 5s"}, names(true, at(14)), "what has lapsed is not reported")
	require.Empty(t, names(true, at(20)))
}

func TestSectionRefusals(t *testing.T) {
	var refusals []string
	s := &LeaseSection{renewals: newRenewals(), ledger: newLedger(), now: func() time.Time { return epoch }, refused: func(member string, err error) {
		refusals = append(refusals, member)
	}}
	require.Nil(t, s.Collect(true))
	s.Deliver("eu-1", []byte{0xff})
	require.Equal(t, []string{"eu-1"}, refusals)
	_, err := s.Answer(nil)
	require.EqualError(t, err, "leases answer no queries")
}

func FuzzDeliver(f *testing.F) {
	b, err := proto.Marshal(&statev1.LeaseReport{Renewals: []*statev1.Renewal{{Lease: leaseNamed(1), Age: durationpb.New(time.Second)}}})
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, report []byte) {
		s := &LeaseSection{renewals: newRenewals(), ledger: newLedger(), now: func() time.Time { return epoch }, refused: func(string, error) {}}
		s.Deliver("eu-1", report)
		for lease, renewed := range s.ledger.renewed {
			require.Len(t, lease, 2*leaseIDSize)
			require.False(t, renewed.After(epoch))
		}
	})
}
