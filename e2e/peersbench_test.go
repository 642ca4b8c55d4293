package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// versionTimes is when a member first served each version of a domain's bundle, or a later one.
type versionTimes struct {
	mu    sync.Mutex
	newer chan struct{} // closed at the next version
	at    map[uint64]time.Time
	last  uint64
}

// sight watches a domain's bundle at a member until ctx ends.
func sight(ctx context.Context, tb testing.TB, p *process, domain string) *versionTimes {
	tb.Helper()
	watch, err := p.socket().Bundles().WatchBundles(ctx, &ententev1.WatchBundlesRequest{TrustDomains: []string{domain}})
	require.NoError(tb, err)
	s := &versionTimes{newer: make(chan struct{}), at: map[uint64]time.Time{}}
	go func() {
		for {
			told, err := watch.Recv()
			if err != nil {
				return // the benchmark times out with an error
			}
			now := time.Now()
			for _, b := range told.GetChanged() {
				s.mu.Lock()
				for n := max(s.last, b.GetSequence()-1) + 1; n <= b.GetSequence(); n++ {
					s.at[n] = now
				}
				s.last = b.GetSequence()
				close(s.newer)
				s.newer = make(chan struct{})
				s.mu.Unlock()
			}
		}
	}()
	return s
}

// await waits for a version, and returns the newest.
func (s *versionTimes) await(ctx context.Context, sequence uint64) (uint64, error) {
	for {
		s.mu.Lock()
		last, newer := s.last, s.newer
		s.mu.Unlock()
		if last >= sequence {
			return last, nil
		}
		select {
		case <-newer:
		case <-ctx.Done():
			return 0, fmt.Errorf("sequence %d did not come: %w", sequence, ctx.Err())
		}
	}
}

// BenchmarkPeerPropagation is the time from the commit of a new version of a hosted bundle, as the leader of a cluster
// of three hands it out, until each member of another cluster of three hands it out: over the stream between them, and
// two commits. All six members are processes on this machine. The target is 50 ms at the median.
func BenchmarkPeerPropagation(b *testing.B) {
	eu, us := newCluster(b, "eu", 3, endpointHint("1h")), newCluster(b, "us", 3, endpointHint("1h"))
	peerUp(b, eu, us)
	ctx, cancel := context.WithTimeout(b.Context(), 10*waitLimit)
	defer cancel()
	leader := eu.leader()
	here := sight(ctx, b, leader, eu.domain)
	var there []*versionTimes
	for _, p := range us.members {
		there = append(there, sight(ctx, b, p, eu.domain))
	}
	from, err := here.await(ctx, 1)
	require.NoError(b, err)
	newest := from
	for b.Loop() {
		// A key that never signed leaves the bundle, and its member brings the next one: two versions.
		var key *ententev1.Authority
		eventually(b, "a JWT authority that is not the only one", func() error {
			all := append(
				authoritiesOf(b, leader, kindJWT, statePrepared),
				authoritiesOf(b, leader, kindJWT, stateActive)...)
			if len(all) < 2 {
				return errors.New("there is none")
			}
			key = all[0]
			return nil
		})
		_, err := leader.socket().Authorities().RevokeAuthority(ctx, &ententev1.RevokeAuthorityRequest{
			TrustDomain: eu.domain, What: &ententev1.RevokeAuthorityRequest_Id{Id: key.GetId()},
		})
		require.NoError(b, err)
		newest, err = here.await(ctx, newest+2)
		require.NoError(b, err)
		for _, s := range there {
			_, err = s.await(ctx, newest)
			require.NoError(b, err)
		}
	}
	var took []time.Duration
	for n := from + 1; n <= newest; n++ {
		last := there[0].when(n)
		for _, s := range there[1:] {
			if at := s.when(n); at.After(last) {
				last = at
			}
		}
		took = append(took, last.Sub(here.when(n)))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "ms-p50")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "ms-p99")
	b.ReportMetric(float64(len(took)), "versions")
	b.ReportMetric(0, "ns/op")
}

func (s *versionTimes) when(sequence uint64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[sequence]
}
