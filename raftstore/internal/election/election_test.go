package election

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/clocktest"
)

const ms = time.Millisecond

var bounds = Bounds{Lease: 750 * ms, Heartbeat: time.Second, Election: time.Second}

func TestTimeout(t *testing.T) {
	for _, c := range []struct {
		why       string
		gap, want time.Duration
	}{
		{"never below the lease", 0, 750 * ms},
		{"an idle machine", 200 * ms, 750 * ms},
		{"it grows with the gaps", 300 * ms, 900 * ms},
		{"above the configured timeout", 600 * ms, 1800 * ms},
		{"up to a bound", time.Minute, 4 * time.Second},
	} {
		assert.Equal(t, c.want, timeout(bounds, c.gap), c.why)
	}
	long := Bounds{Lease: 5 * time.Second, Heartbeat: time.Second, Election: time.Second}
	assert.Equal(t, 5*time.Second, timeout(long, time.Minute), "a lease beyond the bound counts more")
}

func TestDecide(t *testing.T) {
	configured := Timeouts{time.Second, time.Second}
	armed := Timeouts{1500 * ms, 1500 * ms}
	now := Timeouts{750 * ms, 750 * ms}
	for _, c := range []struct {
		why   string
		s     situation
		want  Timeouts
		again time.Duration
	}{
		{"it leads", situation{leads: true, heard: true, silent: time.Hour}, configured, 750 * ms},
		{"it was started", situation{silent: time.Hour}, configured, 750 * ms},
		{"the leader sends", situation{heard: true, silent: 100 * ms}, armed, 725 * ms},
		{"the next in line waits longer", situation{heard: true, silent: 100 * ms, rank: 1}, armed, 800 * ms},
		{"just before", situation{heard: true, silent: 824 * ms}, armed, ms},
		{"the leader is silent", situation{heard: true, silent: 825 * ms}, now, 187500 * time.Microsecond},
		{"not yet for the next in line", situation{heard: true, silent: 825 * ms, rank: 1}, armed, 75 * ms},
		{
			"under load", situation{heard: true, silent: 1900 * ms, gap: 600 * ms},
			Timeouts{3600 * ms, 3600 * ms}, 80 * ms,
		},
		{
			"silent under load", situation{heard: true, silent: 2 * time.Second, gap: 600 * ms},
			Timeouts{1800 * ms, 1800 * ms}, 450 * ms,
		},
	} {
		got, again := decide(bounds, c.s)
		assert.Equal(t, c.want, got, c.why)
		assert.Equal(t, c.again, again, c.why)
	}
}

func TestGaps(t *testing.T) {
	began := time.Now()
	var g gaps
	now := time.Duration(0)
	// messages receives messages of a leader until a time, one every 100 ms, and the first after a gap.
	messages := func(term uint64, gap, until time.Duration) {
		for now += gap; ; now += 100 * ms {
			require.True(t, g.received(term, began.Add(now), 333*ms))
			if now >= until {
				return
			}
		}
	}
	messages(4, 0, gapSpan-100*ms)
	require.Equal(t, 333*ms, g.gap(), "a member that was started has measured too little")
	messages(4, 100*ms, gapSpan)
	require.Equal(t, 100*ms, g.gap(), "it has measured")
	messages(4, 700*ms, 0)
	require.Equal(t, 700*ms, g.gap(), "a longer gap counts at once")
	require.False(t, g.received(3, began.Add(time.Hour), 333*ms), "an earlier leader")
	require.Equal(t, 700*ms, g.gap())
	messages(4, 100*ms, 2*gapSpan)
	require.Equal(t, 700*ms, g.gap(), "for a while")
	messages(4, 100*ms, 3*gapSpan)
	require.Equal(t, 100*ms, g.gap(), "and no longer")

	messages(5, time.Hour, 0)
	require.Equal(t, 100*ms, g.gap(), "the time between two leaders is no gap, and the next one is taken for as fast")
	messages(5, 600*ms, 0)
	messages(6, 100*ms, 0)
	require.Equal(t, 600*ms, g.gap(), "or for as slow")
	from := now
	messages(6, 100*ms, from+gapSpan-100*ms)
	require.Equal(t, 600*ms, g.gap(), "for a while")
	messages(6, 100*ms, from+gapSpan)
	require.Equal(t, 100*ms, g.gap(), "and no longer")
}

// fakeRaft records the timeouts that it is given.
type fakeRaft struct {
	mu     sync.Mutex
	leads  bool
	config raft.ReloadableConfig
}

func (f *fakeRaft) State() raft.RaftState {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leads {
		return raft.Leader
	}
	return raft.Follower
}

func (f *fakeRaft) ReloadableConfig() raft.ReloadableConfig {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.config
}

func (f *fakeRaft) ReloadConfig(c raft.ReloadableConfig) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.config = c
	return nil
}

func TestTimer(t *testing.T) {
	clocktest.Run(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := &fakeRaft{config: raft.ReloadableConfig{
			TrailingLogs: 7, HeartbeatTimeout: time.Second, ElectionTimeout: time.Second,
		}}
		timer := NewTimer(bounds)
		ended := make(chan error, 1)
		go func() { ended <- timer.Run(ctx, r, func() int { return 1 }) }()
		has := func(want time.Duration, why string) {
			t.Helper()
			<-time.After(time.Millisecond)
			c := r.ReloadableConfig()
			require.Equal(t, raft.ReloadableConfig{
				TrailingLogs: 7, HeartbeatTimeout: want, ElectionTimeout: want,
			}, c, why)
		}
		<-time.After(time.Minute)
		has(time.Second, "no leader was heard yet: the configured timeouts")
		for range 100 {
			timer.Received(3)
			<-time.After(100 * ms)
		}
		has(1500*ms, "a leader sends")
		<-time.After(900 * ms)
		has(750*ms, "it was silent for the lease and two places")
		timer.Received(4)
		has(1500*ms, "another one is taken for as fast")
		require.Equal(t, 900*ms, timer.Timeout(), "the lease, and the place of this member")
		r.mu.Lock()
		r.leads = true
		r.mu.Unlock()
		<-time.After(2 * time.Second)
		has(time.Second, "this member leads")
		timer.SetBounds(Bounds{Lease: time.Hour, Heartbeat: time.Hour, Election: time.Hour})
		has(time.Hour, "other bounds count at once")
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}
