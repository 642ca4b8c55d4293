package xds_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/routing/xds"
)

// BenchmarkChange has 5,000 open streams, 500 of which subscribe to a service of 20 instances, and changes one of the
// instances. It measures the time until the change was received (p99), the number of messages to other streams, and the
// memory of a stream with both ends and gRPC.
func BenchmarkChange(b *testing.B) {
	const streams, interested, instances = 5000, 500, 20
	r := newFixture(b, grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10))
	for i := range instances {
		r.put(fmt.Sprintf("shop %d eu/a healthy", i+1))
		r.put(fmt.Sprintf("other %d eu/a healthy", i+101))
	}
	before := heap()
	type receipt struct {
		at         time.Time
		subscribed bool
	}
	arrived := make(chan receipt, 2*streams)
	var ready sync.WaitGroup
	for i := range streams {
		name, subscribed := "other", i%(streams/interested) == 0
		if subscribed {
			name = "shop"
		}
		s, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(b.Context())
		require.NoError(b, err)
		require.NoError(
			b,
			s.Send(
				&discovery.DeltaDiscoveryRequest{
					Node:                   node("grpc", "eu/a"),
					TypeUrl:                string(xds.Endpoints),
					ResourceNamesSubscribe: []string{name},
				},
			),
		)
		ready.Add(1)
		go func() {
			for first := true; ; first = false {
				m, err := s.Recv()
				if err != nil {
					return
				}
				if err := s.Send(
					&discovery.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()},
				); err != nil {
					return
				}
				if first {
					ready.Done()
				} else {
					arrived <- receipt{time.Now(), subscribed}
				}
			}
		}()
	}
	ready.Wait()
	perStream := float64(heap()-before) / streams
	var took []time.Duration
	others := 0
	for i := 0; b.Loop(); i++ {
		health := [...]string{"unhealthy", "healthy"}[i%2]
		begun := time.Now()
		r.put("shop 1 eu/a " + health)
		for range interested {
			m := <-arrived
			if !m.subscribed {
				others++
				continue
			}
			took = append(took, m.at.Sub(begun))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
	b.ReportMetric(float64(others), "to-others")
	b.ReportMetric(perStream/1024, "KiB/stream")
}

// heap returns the memory in use after a garbage collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
