package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/federation"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// fetchEvery is how often each bundle endpoint is asked while there is no leader.
const fetchEvery = 25 * time.Millisecond

func (s *story) killLeader(ctx context.Context) (string, error) {
	leader, err := s.us.leader(ctx)
	if err != nil {
		return "", err
	}
	if leader == s.endpoints[s.us] {
		// While there is no stream, eu fetches from this member's URL alone; in production a name would stand for several.
		if leader, err = s.moveLead(ctx, leader); err != nil {
			return "", err
		}
	}
	mark := s.traffic.mark()
	endpoints := s.fetchFrom(ctx, s.us.others(leader))
	defer endpoints.cancel()
	s.killed = leader
	leader.kill()
	crash := time.Now()

	// A write waits for the election, and is then made by a majority of two.
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
		"failed; the first write came through after %.1f s, with %s leading",
		leader.id, fetched, calls, election.Seconds(), next.id), nil
}

// moveLead hands the lead to another member.
func (s *story) moveLead(ctx context.Context, from *member) (*member, error) {
	to := s.us.others(from)[0]
	_, err := ententev1.NewClusterServiceClient(s.us.conn).TransferLeadership(ctx, &ententev1.TransferLeadershipRequest{Id: to.id})
	if err != nil {
		return nil, fmt.Errorf("hand the lead from %s to %s: %w", from.id, to.id, err)
	}
	err = poll(ctx, nil, func(ctx context.Context) (bool, error) {
		now, err := s.us.leader(ctx)
		return now == to, err
	})
	return to, err
}

// write makes a join token, which is one transaction, at whichever of the members takes it first.
func write(ctx context.Context, members []*member) (revision uint64, err error) {
	err = poll(ctx, nil, func(ctx context.Context) (bool, error) {
		var failed error
		for _, m := range members {
			token, err := ententev1.NewClusterServiceClient(m.conn).CreateJoinToken(ctx, &ententev1.CreateJoinTokenRequest{})
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

// refreshedSince waits until eu has had the bundle of us confirmed after a moment, by a stream or by a fetch.
func (s *story) refreshedSince(ctx context.Context, moment time.Time) error {
	var last *timestamppb.Timestamp
	err := poll(ctx, nil, func(ctx context.Context) (bool, error) {
		r, err := ententev1.NewFederationServiceClient(s.eu.conn).GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: s.us.domain.Name()})
		last = r.GetLastSuccessTime()
		return last != nil && last.AsTime().After(moment), err
	})
	if err != nil {
		return fmt.Errorf("wait until eu has heard of the bundle of us again: %w", err)
	}
	return nil
}

// fetching asks bundle endpoints for a bundle, again and again.
type fetching struct {
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	mu      sync.Mutex
	fetched int
	err     error
}

// fetchFrom asks as any SPIFFE client would: with go-spiffe, verifying the endpoint by the bundle that eu has.
func (s *story) fetchFrom(ctx context.Context, members []*member) *fetching {
	f := &fetching{}
	ctx, f.cancel = context.WithCancel(ctx)
	for _, m := range members {
		f.loops.Go(func() {
			tick := time.NewTicker(fetchEvery)
			defer tick.Stop()
			for {
				got, err := federation.FetchBundle(ctx, s.us.domain, bundleURL(m, s.us), federation.WithSPIFFEAuth(s.euCaller, s.us.endpointID()))
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

// stop ends the fetching and says how it went. It can be called twice.
func (f *fetching) stop() (int, error) {
	f.cancel()
	f.loops.Wait()
	if f.err == nil && f.fetched == 0 {
		f.err = errors.New("nothing was fetched at all")
	}
	return f.fetched, f.err
}

func (s *story) restart(ctx context.Context) (string, error) {
	mark := s.traffic.mark()
	if err := s.killed.start(); err != nil {
		return "", err
	}
	// Its own state, not the leader's, has to hold what was written while it was away.
	caughtUp := &ententev1.ListMembersRequest{Read: &ententev1.ReadOptions{
		Consistency: ententev1.Consistency_CONSISTENCY_STALE, MinRevision: s.written,
	}}
	if err := s.killed.await(ctx, "has caught up", func(ctx context.Context) (bool, error) {
		_, err := ententev1.NewClusterServiceClient(s.killed.conn).ListMembers(ctx, caughtUp)
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
