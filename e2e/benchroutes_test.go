package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// BenchmarkRoutesOverTLS has 5,000 clients, each with a mutual TLS connection and an ADS stream of its own to one
// member process. 500 of them subscribe to a service of 20 instances, of which one changes. It reports the time until
// each of the 500 is notified (p99), the messages to the others, and the growth of the member's memory for each client:
// with the default garbage collector, and with one that runs often (GOGC=10), which is close to what is in use.
func BenchmarkRoutesOverTLS(b *testing.B) {
	for _, collector := range []string{"100", "10"} {
		b.Run("GOGC="+collector, func(b *testing.B) {
			b.Setenv("GOGC", collector)
			benchmarkRoutes(b)
		})
	}
}

func benchmarkRoutes(b *testing.B) {
	const clients, interested, instances = 5000, 500, 20
	c := newCluster(b, "eu", 1, quick)
	p := c.members[0]
	routing := p.socket().Routing()
	put := func(service string, n int, health ententev1.Health) {
		_, err := routing.RegisterInstance(
			b.Context(),
			&ententev1.RegisterInstanceRequest{Instance: &ententev1.Instance{
				Service: service, Address: fmt.Sprintf("10.0.0.%d:443", n),
				Locality: &ententev1.Locality{Region: "eu-region", Zone: "a"},
				SpiffeId: "spiffe://eu.example.org/" + service, Health: health,
			}},
		)
		require.NoError(b, err)
	}
	for n := range instances {
		put("shop", n+1, ententev1.Health_HEALTH_HEALTHY)
		put("other", n+101, ententev1.Health_HEALTH_HEALTHY)
	}
	var callers []workload // one may have so many connections
	for i := range 4 {
		id := fmt.Sprintf("spiffe://%s/caller/%d", c.domain, i)
		p.command("access", "grant", "discovery", "--spiffe-id", id)
		callers = append(callers, issue(b, p, id))
	}

	before := residentMemory(b, p.cmd)
	type update struct {
		at         time.Time
		subscribed bool
	}
	arrived := make(chan update, 2*clients)
	var opening errgroup.Group
	opening.SetLimit(64)
	for i := range clients {
		name, subscribed := "other", i%(clients/interested) == 0
		if subscribed {
			name = "shop"
		}
		opening.Go(func() error {
			s, err := openADS(b, callers[i%len(callers)].call(b, p, c.domain, small...).Conn(), name)
			if err != nil {
				return err
			}
			go func() {
				for {
					m, err := s.Recv()
					if err != nil ||
						s.Send(
							&discovery.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()},
						) != nil {
						return
					}
					arrived <- update{time.Now(), subscribed}
				}
			}()
			return nil
		})
	}
	require.NoError(b, opening.Wait())
	perClient := float64(residentMemory(b, p.cmd)-before) / clients

	var took []time.Duration
	others := 0
	for i := 0; b.Loop(); i++ {
		begun := time.Now()
		put("shop", 1, [...]ententev1.Health{ententev1.Health_HEALTH_UNHEALTHY, ententev1.Health_HEALTH_HEALTHY}[i%2])
		for got := 0; got < interested; {
			m := <-arrived
			if !m.subscribed {
				others++
				continue
			}
			got++
			took = append(took, m.at.Sub(begun))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
	b.ReportMetric(float64(others), "to-others")
	b.ReportMetric(perClient/1024, "KiB/client")
}

// small are the buffers of a client with little traffic.
var small = []grpc.DialOption{grpc.WithReadBufferSize(4 << 10), grpc.WithWriteBufferSize(4 << 10)}

// openADS opens a stream on a connection, and reads the first answer.
func openADS(
	b *testing.B, conn grpc.ClientConnInterface, service string,
) (discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, error) {
	s, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(b.Context())
	if err != nil {
		return nil, err
	}
	err = s.Send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{
			Id:            "bench",
			UserAgentName: "gRPC Go",
			Locality:      &core.Locality{Region: "eu-region", Zone: "a"},
		},
		TypeUrl: resource.EndpointType, ResourceNamesSubscribe: []string{service},
	})
	if err != nil {
		return nil, err
	}
	m, err := s.Recv()
	if err != nil {
		return nil, err
	}
	return s, s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()})
}

var resident = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)

// residentMemory is what the process has resident now, in bytes.
func residentMemory(tb testing.TB, p *exec.Cmd) int64 {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Process.Pid), "status"))
	require.NoError(tb, err)
	match := resident.FindSubmatch(status)
	require.NotNil(tb, match, "no VmRSS in /proc: this benchmark needs Linux")
	kib, err := strconv.ParseInt(string(match[1]), 10, 64)
	require.NoError(tb, err)
	return kib << 10
}
