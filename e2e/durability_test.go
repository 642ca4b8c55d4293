package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// register writes one row: an instance without a lease.
func register(ctx context.Context, p *process, domain, service string, n int) error {
	_, err := p.socket().Routing().RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{
		Instance: &ententev1.Instance{
			Service: service, Address: fmt.Sprintf("10.%d.%d.%d:80", n>>16&255, n>>8&255, n&255),
			Locality: &ententev1.Locality{Region: "r", Zone: "z"}, SpiffeId: "spiffe://" + domain + "/" + service,
		},
	})
	return err
}

func instances(t *testing.T, p *process, service string) map[string]bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	answer, err := p.socket().Routing().GetService(ctx, &ententev1.GetServiceRequest{Name: service})
	require.NoError(t, err)
	out := map[string]bool{}
	for _, i := range answer.GetInstances() {
		out[i.GetAddress()] = true
	}
	return out
}

func TestKillTheLeaderUnderWriteLoad(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	leader := c.leader()
	survivors := c.others(leader)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	afterKill := 0
	killed := false
	enough := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 8 {
		p := survivors[w%2]
		if w%4 == 3 {
			p = leader // some writers lose the member that they talk to
		}
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := w<<16 | n
				call, done := context.WithTimeout(ctx, 10*time.Second)
				err := register(call, p, c.domain, fmt.Sprintf("load-%d", w), id)
				done()
				if err != nil {
					continue // not acknowledged: it may be there or not
				}
				mu.Lock()
				acknowledged[fmt.Sprintf("load-%d 10.%d.%d.%d:80", w, id>>16&255, id>>8&255, id&255)] = true
				if killed {
					if afterKill++; afterKill == 200 {
						close(enough)
					}
				}
				mu.Unlock()
			}
		})
	}
	eventually(t, "there is load", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(acknowledged) < 200 {
			return fmt.Errorf("%d writes so far", len(acknowledged))
		}
		return nil
	})
	leader.kill()
	mu.Lock()
	killed = true
	before := len(acknowledged)
	mu.Unlock()
	select {
	case <-enough:
	case <-time.After(waitLimit):
		t.Fatal("writes did not go on after the leader was killed")
	}
	cancel()
	writers.Wait()

	c.start(leader) // from its disk
	t.Logf("%d writes acknowledged before the kill, %d in all", before, len(acknowledged))
	for _, p := range c.members {
		found := map[string]bool{}
		for w := range 8 {
			service := fmt.Sprintf("load-%d", w)
			for address := range instances(t, p, service) {
				found[service+" "+address] = true
			}
		}
		for write := range acknowledged {
			require.True(t, found[write], "%s lost the acknowledged write %s", p.id, write)
		}
	}
}

func TestWithoutQuorumBundlesAreServedAndWritesFailFast(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	last := c.members[2]
	before, err := last.document("/")
	require.NoError(t, err)
	for _, p := range c.others(last) {
		p.kill()
	}
	eventually(t, "the member has noticed", func() error {
		if _, err := last.leaderID(); err == nil {
			return fmt.Errorf("it still names a leader")
		}
		return nil
	})

	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	begun := time.Now()
	err = register(ctx, last, c.domain, "web", 1)
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	require.Contains(t, err.Error(), "no leader")
	require.Less(t, time.Since(begun), waitLimit/2, "the write did not fail by itself")

	after, err := last.document("/")
	require.NoError(t, err)
	require.Equal(t, before, after)

	for _, p := range c.others(last) {
		p.run()
	}
	eventually(
		t,
		"writes go on once there is a quorum",
		func() error { return register(ctx, last, c.domain, "web", 1) },
	)
}

func TestTheWholeClusterStopsAndStartsAgain(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	require.NoError(t, register(ctx, c.members[1], c.domain, "web", 7))
	eventually(t, "every member has published its authorities", func() error {
		if b := homeBundle(t, c); b.GetX509Authorities() < 3 || b.GetJwtAuthorities() < 3 {
			return fmt.Errorf("%d X.509 and %d JWT authorities", b.GetX509Authorities(), b.GetJwtAuthorities())
		}
		return nil
	})
	document := string(homeBundle(t, c).GetDocument())
	for _, p := range c.members {
		p.stop()
	}
	for _, p := range c.members {
		p.run()
	}
	for _, p := range c.members {
		p.waitReady()
		require.Len(t, instances(t, p, "web"), 1)
		eventually(t, p.id+" serves the bundle as it was", func() error {
			again, err := p.document("/")
			if err == nil && again != document {
				err = fmt.Errorf("was %s, is %s", document, again)
			}
			return err
		})
	}
}
