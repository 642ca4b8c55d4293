package demo

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// fetchEvery is the interval of fetches from each bundle endpoint while there is no leader.
const fetchEvery = 25 * time.Millisecond

func (s *story) killLeader(ctx context.Context) (string, error) {
	leader, err := s.us.leader(ctx)
	if err != nil {
		return "", err
	}
	if leader == s.endpoints[s.us] {
		// While there is no stream, eu fetches only from the URL of this member; in production a name has several
		// addresses.
		if leader, err = s.moveLeadership(ctx, leader); err != nil {
			return "", err
		}
	}
	mark := s.traffic.mark()
	endpoints := s.fetchFrom(ctx, s.us.others(leader))
	defer endpoints.cancel()
	s.killed = leader
	leader.kill()
	crash := time.Now()

	// A write waits for the election, and is then committed by a majority of two.
	if s.written, err = write(ctx, s.us.others(leader)); err != nil {
		return "", fmt.Errorf("write after %s was killed: %w", leader.id, err)
	}
	election := time.Since(crash)
	fetched, err := endpoints.stop()
	if err != nil {
		return "", fmt.Errorf("fetch the bundle of us while it had no leader: %w", err)
	}
	next, err := s.us.leader(ctx)
	if err != nil {
		return "", err
	}
	if err := s.refreshedSince(ctx, crash); err != nil {
		return "", err
	}
	calls, err := s.traffic.since(mark)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s got SIGKILL; %d fetches from the other two bundle endpoints, and %d calls across, none "+
		"failed; the first write succeeded after %.1f s, with %s leading",
		leader.id, fetched, calls, election.Seconds(), next.id), nil
}

// moveLeadership transfers leadership to another member.
func (s *story) moveLeadership(ctx context.Context, from *member) (*member, error) {
	to := s.us.others(from)[0]
	_, err := s.us.conn.Cluster().TransferLeadership(ctx, &ententev1.TransferLeadershipRequest{Id: to.id})
	if err != nil {
		return nil, fmt.Errorf("transfer leadership from %s to %s: %w", from.id, to.id, err)
	}
	err = poll(ctx, nil, func(ctx context.Context) (bool, error) {
		now, err := s.us.leader(ctx)
		return now == to, err
	})
	return to, err
}

// write makes a join token, which is one transaction, at the first member that accepts it.
func write(ctx context.Context, members []*member) (revision uint64, err error) {
	err = poll(ctx, nil, func(ctx context.Context) (bool, error) {
		var failed error
		for _, m := range members {
			token, err := m.conn.Cluster().CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{MemberId: "spare"})
			if err == nil {
				revision = token.GetRevision()
				return true, nil
			}
			failed = err
		}
		return false, failed
	})
	return revision, err
}

// refreshedSince waits until eu has refreshed the bundle of us after a moment, by a stream or a fetch.
func (s *story) refreshedSince(ctx context.Context, moment time.Time) error {
	var last *timestamppb.Timestamp
	err := poll(ctx, nil, func(ctx context.Context) (bool, error) {
		r, err := s.eu.conn.Federation().
			GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: s.us.domain.Name()})
		last = r.GetLastSuccessTime()
		return last != nil && last.AsTime().After(moment), err
	})
	if err != nil {
		return fmt.Errorf("wait until eu has refreshed the bundle of us: %w", err)
	}
	return nil
}

// fetching fetches a bundle from bundle endpoints, repeatedly.
type fetching struct {
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	mu      sync.Mutex
	fetched int
	err     error
}

// fetchAsClient fetches the bundle of us once. go-spiffe's parser computes SHA-1 thumbprints of certificates, which
// GODEBUG=fips140=only forbids: this client stands for one in a process of its own.
func (s *story) fetchAsClient(ctx context.Context, m *member) (got *spiffebundle.Bundle, err error) {
	fips140.WithoutEnforcement(func() {
		got, err = federation.FetchBundle(
			ctx, s.us.domain, bundleURL(m, s.us), federation.WithSPIFFEAuth(s.euCaller, s.us.endpointID()),
		)
	})
	return got, err
}

// fetchFrom starts fetching as any SPIFFE client does: with go-spiffe, verifying the endpoint by the bundle of eu.
func (s *story) fetchFrom(ctx context.Context, members []*member) *fetching {
	f := &fetching{}
	ctx, f.cancel = context.WithCancel(ctx)
	for _, m := range members {
		f.loops.Go(func() {
			tick := time.NewTicker(fetchEvery)
			defer tick.Stop()
			for {
				got, err := s.fetchAsClient(ctx, m)
				if ctx.Err() != nil {
					return
				}
				if err == nil && len(got.X509Authorities()) == 0 {
					err = errors.New("the bundle is empty")
				}
				if err != nil {
					err = fmt.Errorf("%s: %w", m.id, err)
				}
				f.count(err)
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	return f
}

func (f *fetching) count(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.fetched++
	} else if f.err == nil {
		f.err = err
	}
}

// stop ends the fetching and returns the number of fetches and the first error. It can be called twice.
func (f *fetching) stop() (int, error) {
	f.cancel()
	f.loops.Wait()
	if f.err == nil && f.fetched == 0 {
		f.err = errors.New("no fetch succeeded")
	}
	return f.fetched, f.err
}

func (s *story) restart(ctx context.Context) (string, error) {
	mark := s.traffic.mark()
	if err := s.killed.start(); err != nil {
		return "", err
	}
	// Its own state, not the leader's, must have what was written while it was down.
	caughtUp := &ententev1.ListMembersRequest{Read: &ententev1.ReadOptions{
		Consistency: ententev1.Consistency_CONSISTENCY_STALE, MinRevision: s.written,
	}}
	if err := s.killed.await(ctx, "has caught up", func(ctx context.Context) (bool, error) {
		_, err := s.killed.conn.Cluster().ListMembers(ctx, caughtUp)
		return err == nil, err
	}); err != nil {
		return "", err
	}
	if err := s.us.awaitMembers(ctx, len(s.us.members)); err != nil {
		return "", err
	}
	calls, err := s.traffic.since(mark)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s started from its folder and has what was written without it (revision %d); three voters "+
		"are alive; %d calls meanwhile, none failed", s.killed.id, s.written, calls), nil
}
