package federation

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/fetch"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/clocktest"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/trust/standing"
)

// pollers is a member's scheduler under fake time, with fetches that succeed at once.
type pollers struct {
	manager *Manager
	mu      sync.Mutex
	fetched map[string]int
}

func newPollers(t *testing.T) *pollers {
	m := newState("eu-1", time.Now)
	m.config.MinRefresh = relationship.DefaultMinRefresh
	p := &pollers{manager: m, fetched: map[string]int{}}
	poller, err := fetch.New(fetch.Config{
		Intake: m.intake, Mirror: m.catalog, Observations: m.observations, Routes: m.routes, Maps: m.importer,
		Log: m.log, Now: time.Now,
	})
	require.NoError(t, err)
	m.scheduler = fetch.NewScheduler(poller, m.member, noStreams{})
	m.scheduler.Fetch = func(_ context.Context, name string, _ time.Duration) intake.Outcome {
		p.mu.Lock()
		p.fetched[name]++
		p.mu.Unlock()
		m.observations.Attempted(name, 1, time.Now(), true, relationship.ResultNotModified, "")
		return intake.Outcome{Result: relationship.ResultNotModified}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.scheduler.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return p
}

// pass advances the time, and returns how often each relationship was fetched.
func (p *pollers) pass(d time.Duration) map[string]int {
	p.mu.Lock()
	clear(p.fetched)
	p.mu.Unlock()
	<-time.After(d)
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.fetched)
}

type noStreams struct{}

func (noStreams) Covers(string, string) bool { return false }
func (noStreams) TakeEnded(string) bool      { return false }

// holdFresh adds relationships whose bundles are fresh, and stored as such.
func (p *pollers) holdFresh(t *testing.T, hint time.Duration, all []string) {
	t.Helper()
	sequence, batch := uint64(1), raftstore.Batch{Revision: 1}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	put := func(table, key string, row proto.Message) {
		value, err := proto.Marshal(row)
		require.NoError(t, err)
		batch.Changes = append(batch.Changes, raftstore.Change{Table: table, Key: key, Value: value})
	}
	for _, name := range all {
		b, err := bundle.New(spiffeid.RequireTrustDomainFromString(name), bundle.Content{
			Sequence: &sequence, RefreshHint: &hint,
			JWTAuthorities: map[string]crypto.PublicKey{"key": key.Public()},
		})
		require.NoError(t, err)
		put(relationship.ForeignBundles.Name(), name, b.Row(time.Now()))
		put(relationship.Relationships.Name(), name, &statev1.Relationship{
			TrustDomain: name, Url: "https://" + name, Profile: federationtest.WebProfile, Generation: 1,
			Validity: relationship.Validity{State: standing.Fresh, X509Expired: true}.Row(time.Now()),
		})
	}
	p.manager.catalog.Apply(batch, func(err error) { require.NoError(t, err) })
	p.manager.scheduler.Changed(all...)
}

// TestLeaderChangeCausesNoBurst tests the death of a member that leads ten thousand relationships. Each other member
// takes over its part a few at a time, polls its own relationships as before, and reports to the new leader in parts.
// The new leader, which has no reports yet, writes nothing.
func TestLeaderChangeCausesNoBurst(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		const interval = 5 * time.Minute
		tt := newPollers(t)
		before, after := []string{"eu-1", "eu-2", "eu-3"}, []string{"eu-1", "eu-2"}
		all := federationtest.Names(10_000, "example.org")
		owned := map[string][]string{} // by whose they were, those that are eu-1's in the end
		others := 0
		for _, name := range all {
			if membership.Owner(name, after) == "eu-1" {
				owned[membership.Owner(name, before)] = append(owned[membership.Owner(name, before)], name)
			} else {
				others++
			}
		}
		require.Empty(t, owned["eu-2"], "a surviving member keeps its relationships")
		require.InDelta(t, 10_000./3, len(owned["eu-1"]), 300)
		require.InDelta(t, 10_000./6, len(owned["eu-3"]), 300)

		tt.manager.scheduler.SetMembers(before)
		tt.holdFresh(t, interval, all)
		tt.pass(3 * interval)

		// The leader eu-3 dies, and eu-1 leads.
		tt.manager.observations.Reset()
		leading := time.Now()
		tt.manager.scheduler.SetMembers(after)
		judged := tt.manager.freshness.queue(leading)
		total := map[string]int{}
		most, reports := 0, 0
		first := tt.manager.observations.Collect(true)
		for second := range int(2 * interval / time.Second) {
			polls := 0
			for name, n := range tt.pass(time.Second) {
				total[name] += n
				polls += n
			}
			most = max(most, polls)
			// A heartbeat per second reports the changes to the leader, as many as fit.
			report := first
			if second > 0 {
				report = tt.manager.observations.Collect(false)
			}
			if report != nil {
				message := &statev1.RelationshipReport{}
				require.NoError(t, proto.Unmarshal(report, message))
				require.LessOrEqual(t, len(message.GetObservations()), observation.MaxReport)
				reports += len(message.GetObservations())
				tt.manager.observations.Deliver("eu-1", report)
			}
			require.Zero(t, len(judged.judge()), "second %d", second)
		}
		require.Less(t, most, 200, "a hundred a second are taken over, and some eleven a second were polled before")
		for _, name := range append(owned["eu-1"], owned["eu-3"]...) {
			require.Positive(t, total[name], name)
			require.LessOrEqual(t, total[name], 4, name) // two intervals, a takeover, and the turn that spreads it out
		}
		require.Less(t, reports, 5*len(all), "each attempt is reported once, and once more to a new leader")

		// The relationships of eu-2 have no report for three intervals: only they are stale then, all at once.
		tt.pass(interval + time.Minute)
		collect := tt.manager.observations.Collect
		for report := collect(false); report != nil; report = collect(false) {
			tt.manager.observations.Deliver("eu-1", report)
		}
		found := judged.judge()
		require.Equal(t, others, len(found)) // Len would print them all
		for _, is := range found {
			require.NotEqual(t, "eu-1", membership.Owner(is.name, after))
		}
	})
}
