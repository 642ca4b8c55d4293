package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore"
)

// defaultTiming is that of a member in operation.
func defaultTiming(c *raftstore.Config) { c.Timing = raftstore.Timing{} }

// failOverRounds is how often the leader is lost at least.
const failOverRounds = 20

// BenchmarkFailOver measures how long writes through another member wait when the leader is lost, with the default
// timing: once on the machine as it is, and once with a process on each core that takes all of its time.
func BenchmarkFailOver(b *testing.B) {
	for _, busy := range []int{0, runtime.NumCPU()} {
		b.Run(fmt.Sprintf("busy=%d", busy), func(b *testing.B) {
			for range busy {
				spin := exec.Command("sh", "-c", "while :; do :; done")
				require.NoError(b, spin.Start())
				b.Cleanup(func() {
					require.NoError(b, spin.Process.Kill())
					require.Error(b, spin.Wait())
				})
			}
			l := newLoopback(b)
			stores, stops := make([]*raftstore.Store, len(benchMembers)), make([]func() error, len(benchMembers))
			start := func(i int) {
				var err error
				stores[i], stops[i], err = l.open(benchMembers[i], defaultTiming)
				require.NoError(b, err)
			}
			b.Cleanup(func() {
				for _, stop := range stops {
					require.NoError(b, stop())
				}
			})
			for i := range stores {
				start(i)
			}
			require.NoError(b, stores[0].Bootstrap())
			awaitLeadership(b.Context(), b, stores[0])
			for i, member := range benchMembers[1:] {
				l.addVoter(b, stores[:i+2], member)
			}
			var waits []float64
			b.ResetTimer()
			for round := range max(b.N, failOverRounds) {
				settle(b, stores)
				leader := leaderOf(b, stores)
				writer := stores[(leader+1+round%2)%len(stores)]
				began := time.Now()
				require.NoError(b, stops[leader]())
				retryWithoutLeader(b, func() error { return rewrite(b.Context(), writer, "bench/failover") })
				waits = append(waits, float64(time.Since(began).Milliseconds()))
				start(leader)
			}
			b.StopTimer()
			slices.Sort(waits)
			b.ReportMetric(waits[len(waits)/2], "p50-ms")
			b.ReportMetric(waits[len(waits)*99/100], "p99-ms")
			b.ReportMetric(waits[len(waits)-1], "max-ms")
			b.ReportMetric(0, "ns/op") // the rounds wait for elections that the benchmark does not measure
		})
	}
}

// retryWithoutLeader repeats what fails because there is no leader, or because a member is behind.
func retryWithoutLeader(b *testing.B, call func() error) {
	b.Helper()
	err := call()
	for errors.Is(err, raftstore.ErrNoLeader) || errors.Is(err, raftstore.ErrUnknownOutcome) ||
		errors.Is(err, raftstore.ErrBehind) || errors.As(err, new(*raftstore.StartingError)) {
		err = call()
	}
	require.NoError(b, err)
}

// measuredFor is for how long a member that was started follows a leader before that is lost: it has measured the gaps
// between the messages by then.
const measuredFor = 6 * time.Second

// settle returns once all members follow one leader, which has led for long enough to be measured.
func settle(b *testing.B, stores []*raftstore.Store) {
	b.Helper()
	for _, s := range stores {
		retryWithoutLeader(b, func() error {
			_, err := s.Read(b.Context(), raftstore.ReadOptions{Linearizable: true})
			return err
		})
	}
	for began := time.Now(); time.Since(began) < measuredFor; {
		retryWithoutLeader(b, func() error { return rewrite(b.Context(), stores[0], "bench/settle") })
	}
}

// BenchmarkElectionsUnderLoad counts the elections of three members with the default timing while far more writes and
// linearizable reads run at a time than they execute: there should be none.
func BenchmarkElectionsUnderLoad(b *testing.B) {
	const phase = 10 * time.Second
	stores := newLoopback(b).form(b, benchMembers, defaultTiming)
	for _, callers := range []int{64, 640, 6400} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			elections, failed, done := uint64(0), atomic.Int64{}, atomic.Int64{}
			for range b.N {
				before := stores[0].Term()
				ctx, cancel := context.WithTimeout(b.Context(), phase)
				var all sync.WaitGroup
				for i := range callers {
					all.Go(func() {
						s := stores[i%len(stores)]
						for ctx.Err() == nil {
							var err error
							if i%2 == 0 {
								err = rewrite(ctx, s, fmt.Sprintf("bench/%04d", i))
							} else {
								_, err = s.Read(ctx, raftstore.ReadOptions{Linearizable: true})
							}
							switch {
							case err == nil:
								done.Add(1)
							case ctx.Err() == nil:
								failed.Add(1)
							}
						}
					})
				}
				all.Wait()
				cancel()
				elections += stores[0].Term() - before
			}
			b.ReportMetric(float64(elections)/float64(b.N), "elections/op")
			b.ReportMetric(float64(done.Load())/phase.Seconds()/float64(b.N), "calls/s")
			b.ReportMetric(float64(failed.Load())/float64(b.N), "failed/op")
			b.ReportMetric(0, "ns/op")
		})
	}
}
