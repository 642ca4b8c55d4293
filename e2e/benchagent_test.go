package e2e

import (
	"context"
	"slices"
	"testing"
	"time"

	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// BenchmarkAgent measures an agent, a process, by workloads that each have a connection of their own: how long the
// first X509-SVID takes, how long a change of the bundle takes to reach 1,000 of them, and what they cost.
func BenchmarkAgent(b *testing.B) {
	const first, connected = 200, 1000
	c := newCluster(b, "eu", 1, quick)
	socket, node := startAgent(b, c, "node-1", []string{c.members[0].api}, "spiffe://"+c.domain+"/web")
	ctx := metadata.AppendToOutgoingContext(b.Context(), "workload.spiffe.io", "true")
	// One process opens all streams here, and may open so many a second.
	pace := rate.NewLimiter(100, 1)
	open := func(ctx context.Context) workloadpb.SpiffeWorkloadAPI_FetchX509SVIDClient {
		require.NoError(b, pace.Wait(ctx))
		conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10))
		require.NoError(b, err)
		b.Cleanup(func() { _ = conn.Close() })
		stream, err := workloadpb.NewSpiffeWorkloadAPIClient(conn).FetchX509SVID(ctx, &workloadpb.X509SVIDRequest{})
		require.NoError(b, err)
		return stream
	}
	receive := func(s workloadpb.SpiffeWorkloadAPI_FetchX509SVIDClient) string {
		m, err := s.Recv()
		require.NoError(b, err)
		return string(m.GetSvids()[0].GetBundle())
	}
	receive(open(ctx)) // the SVID is signed
	rest := residentMemory(b, node.cmd)

	var took []time.Duration
	for range first {
		require.NoError(b, pace.Wait(ctx))
		call, cancel := context.WithCancel(ctx)
		conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(b, err)
		at := time.Now()
		stream, err := workloadpb.NewSpiffeWorkloadAPIClient(conn).FetchX509SVID(call, &workloadpb.X509SVIDRequest{})
		require.NoError(b, err)
		receive(stream)
		took = append(took, time.Since(at))
		cancel()
		require.NoError(b, conn.Close())
	}
	slices.Sort(took)

	before := residentMemory(b, node.cmd)
	var streams []workloadpb.SpiffeWorkloadAPI_FetchX509SVIDClient
	was := ""
	for range connected {
		s := open(ctx)
		was = receive(s)
		streams = append(streams, s)
	}
	each := float64(residentMemory(b, node.cmd)-before) / connected

	changed := make(chan time.Time, connected)
	for _, s := range streams {
		go func() { // it ends with the connection
			for {
				m, err := s.Recv()
				if err != nil {
					return
				}
				if string(m.GetSvids()[0].GetBundle()) != was {
					changed <- time.Now()
					return
				}
			}
		}()
	}
	_, err := c.members[0].socket().Authorities().RotateAuthorities(b.Context(),
		&ententev1.RotateAuthoritiesRequest{TrustDomain: c.domain, Anchors: true})
	require.NoError(b, err)
	at := time.Now() // the new root is in the bundle
	var last time.Time
	for range connected {
		select {
		case last = <-changed:
		case <-time.After(waitLimit):
			b.Fatal("not every workload has the new bundle")
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[first/2].Microseconds())/1000, "ms-first-p50")
	b.ReportMetric(float64(took[first*99/100].Microseconds())/1000, "ms-first-p99")
	b.ReportMetric(max(0, last.Sub(at).Seconds()), "s-change")
	b.ReportMetric(float64(rest)/(1<<20), "MiB-at-rest")
	b.ReportMetric(each/(1<<10), "KiB/stream")
}
