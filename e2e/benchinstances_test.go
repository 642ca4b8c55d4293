package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

const manyInstances, manyServices = 100_000, 100

// BenchmarkManyInstances replaces, on a cluster of three processes, all of what one control plane has registered:
// 100,000 instances of 100 services, new and then all of them changed. Then it restarts a member, until it is ready and
// hints for all of them are right; the most memory that any member had is beside it. The targets are 5 s, 10 s and 1
// GiB.
func BenchmarkManyInstances(b *testing.B) {
	c := newCluster(b, "eu", 3, "")
	ctx, cancel := context.WithTimeout(b.Context(), 20*waitLimit)
	defer cancel()
	p := c.members[0]
	lease, err := p.socket().Routing().KeepLease(ctx)
	require.NoError(b, err)
	require.NoError(
		b, lease.Send(&ententev1.KeepLeaseRequest{Open: &ententev1.OpenLease{Ttl: durationpb.New(10 * time.Minute)}}),
	)
	held, err := lease.Recv()
	require.NoError(b, err)

	var made, changed, restarted time.Duration
	b.ResetTimer()
	for n := range b.N {
		made += replaceAll(ctx, b, p, held.GetSecret(), uint32(2*n+1))    //nolint:gosec // few
		changed += replaceAll(ctx, b, p, held.GetSecret(), uint32(2*n+2)) //nolint:gosec // few
		other := c.others(c.leader())[0]
		other.kill()
		began := time.Now()
		other.run()
		other.waitReady()
		client := other.socket().Routing()
		for s := range manyServices {
			eventually(b, "the hint of the restarted member", func() error {
				hint, err := client.GetHint(
					ctx,
					&ententev1.GetHintRequest{
						Service:  fmt.Sprintf("service-%d", s),
						Locality: &ententev1.Locality{Region: "region-0"},
					},
				)
				if err != nil {
					return err
				}
				if got := offered(hint); got != manyInstances/manyServices {
					return fmt.Errorf("it has %d instances", got)
				}
				return nil
			})
		}
		restarted += time.Since(began)
	}
	most := 0.0
	for _, p := range c.members {
		most = max(most, peakMemory(b, p))
	}
	runs := float64(b.N)
	b.ReportMetric(made.Seconds()/runs, "s/first")
	b.ReportMetric(changed.Seconds()/runs, "s/replaced")
	b.ReportMetric(restarted.Seconds()/runs, "s/restart")
	b.ReportMetric(most, "MiB-peak")
	b.ReportMetric(0, "ns/op")
}

// replaceAll sets the instances of a lease to 100,000 with one weight, and returns how long that took.
func replaceAll(ctx context.Context, b *testing.B, p *process, secret string, weight uint32) time.Duration {
	b.Helper()
	began := time.Now()
	stream, err := p.socket().Routing().ReplaceInstances(ctx)
	require.NoError(b, err)
	message := &ententev1.ReplaceInstancesRequest{Target: &ententev1.ReplaceTarget{Lease: secret}}
	for i := range manyInstances {
		service := i % manyServices
		message.Instances = append(message.Instances, &ententev1.Instance{
			Service: fmt.Sprintf(
				"service-%d", service,
			), Address: fmt.Sprintf("10.%d.%d.%d:443", i>>16, i>>8&255, i&255), Weight: weight,
			Locality: &ententev1.Locality{Region: fmt.Sprintf("region-%d", i%3), Zone: fmt.Sprintf("zone-%d", i%10)},
			SpiffeId: fmt.Sprintf(
				"spiffe://eu.example.org/service-%d", service,
			), Health: ententev1.Health_HEALTH_HEALTHY,
		})
		if len(message.GetInstances()) == 4096 || i == manyInstances-1 {
			require.NoError(b, stream.Send(message))
			message = &ententev1.ReplaceInstancesRequest{}
		}
	}
	answer, err := stream.CloseAndRecv()
	require.NoError(b, err)
	require.EqualValues(b, manyInstances, answer.GetInstances())
	require.EqualValues(b, manyInstances, answer.GetAdded()+answer.GetChanged())
	return time.Since(began)
}

func offered(h *ententev1.Hint) (n int) {
	for _, p := range h.GetPriorities() {
		for _, l := range p.GetLocalities() {
			n += len(l.GetEndpoints())
		}
	}
	return n
}
