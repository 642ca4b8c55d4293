package e2e

import (
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// level is where the instances of one priority of a caller in eu-region/a are. instancesEach is the number of each.
var level = []*ententev1.Locality{
	{Region: "eu-region", Zone: "a"}, {Region: "eu-region", Zone: "b"}, {Region: "far-region", Zone: "a"},
}

const instancesEach = 100

// instanceServers serve the addresses of the instances of each level, and answer with the number of the level.
func instanceServers(t *testing.T, socket, id string) (addresses [][]string) {
	t.Helper()
	source, err := workloadapi.NewX509Source(t.Context(),
		workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+socket)),
		workloadapi.WithDefaultX509SVIDPicker(func(all []*x509svid.SVID) *x509svid.SVID {
			for _, s := range all {
				if s.ID.String() == id {
					return s
				}
			}
			return all[0]
		}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = source.Close() })
	for p := range level {
		answer := func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, p) }
		s := &http.Server{
			Handler:           http.HandlerFunc(answer),
			TLSConfig:         tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny()),
			ReadHeaderTimeout: time.Minute,
		}
		var served sync.WaitGroup
		var all []string
		for range instancesEach {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			all = append(all, l.Addr().String())
			served.Go(func() { _ = s.ServeTLS(l, "", "") })
		}
		t.Cleanup(func() { _ = s.Close(); served.Wait() })
		addresses = append(addresses, all)
	}
	return addresses
}

// TestEnvoyComputesTheLoads: with the numbers of healthy instances in docs/ROUTING.md, Envoy gives each priority the
// load that the hint states, in panic too.
func TestEnvoyComputesTheLoads(t *testing.T) {
	binary := envoyBinary(t)
	for name, test := range map[string]struct {
		config  string
		vectors [][3]int // the healthy instances of each priority, of 100
	}{
		"with panic": {"", [][3]int{
			{100, 100, 100}, {72, 72, 100}, {71, 71, 100}, {50, 50, 100}, {25, 100, 100}, {25, 25, 100}, {25, 25, 20},
			{60, 10, 0}, {0, 0, 0},
		}},
		"without panic": {"routing { panic_threshold = 0 }\n", [][3]int{{25, 25, 20}, {20, 0, 10}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "eu", 1, quick+test.config)
			m := &mesh{t: t, eu: c}
			m.grant(c, "/caller")
			id := "spiffe://" + c.domain + "/greeter"
			socket := agent(t, c, "node-1", []string{c.members[0].api}, "spiffe://"+c.domain+"/caller", id)
			addresses := instanceServers(t, socket, id)
			outbound := freePorts(t, 1)[0]
			m.envoy(binary, "caller", c.members[0].command("xds", "bootstrap", "--agent", socket, "--client", "envoy",
				"--locality", "eu-region/a", "--outbound", outbound), outbound)
			for i, vector := range test.vectors {
				service := fmt.Sprint("vector-", i)
				compareLoads(t, c, &requests{outbound: outbound, service: service}, addresses, id, vector)
			}
		})
	}
}

// compareLoads registers a service and compares where Envoy sends requests with the hint.
func compareLoads(t *testing.T, c *cluster, r *requests, addresses [][]string, id string, healthy [3]int) {
	t.Helper()
	const sent = 2000
	routing := c.members[0].socket().Routing()
	stream, err := routing.ReplaceInstances(t.Context())
	require.NoError(t, err)
	m := &ententev1.ReplaceInstancesRequest{Target: &ententev1.ReplaceTarget{Service: r.service}}
	for p, all := range addresses {
		for n, address := range all {
			health := ententev1.Health_HEALTH_UNHEALTHY
			if n < healthy[p] {
				health = ententev1.Health_HEALTH_HEALTHY
			}
			m.Instances = append(m.Instances, &ententev1.Instance{
				Service: r.service, Address: address, Locality: level[p], SpiffeId: id, Health: health,
			})
		}
	}
	require.NoError(t, stream.Send(m))
	_, err = stream.CloseAndRecv()
	require.NoError(t, err)
	hint, err := routing.GetHint(t.Context(), &ententev1.GetHintRequest{Service: r.service, Locality: level[0]})
	require.NoError(t, err)
	eventually(t, "Envoy has the routes of "+r.service, func() error {
		_, err := r.send(t.Context())
		return err
	})
	var mu sync.Mutex
	var got [3]int
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range sent / 8 {
				text, err := r.send(t.Context())
				p, bad := strconv.Atoi(text)
				mu.Lock()
				if err != nil || bad != nil {
					r.failed = append(r.failed, fmt.Sprint(text, err))
				} else {
					got[p]++
				}
				mu.Unlock()
			}
		})
	}
	senders.Wait()
	require.Empty(t, r.failed)
	var want [3]uint32
	panics := false
	for _, p := range hint.GetPriorities() {
		for _, l := range p.GetLocalities() { // none if the priority has no load
			at := func(of *ententev1.Locality) bool { return proto.Equal(of, l.GetLocality()) }
			want[slices.IndexFunc(level, at)] = p.GetLoad()
		}
		panics = panics || p.GetPanic()
	}
	t.Logf("healthy %v: the hint has %v, panic %v; Envoy sent %v of %d", healthy, want, panics, got, sent)
	for i := range level {
		load := float64(want[i]) / 100
		// Six standard deviations: chance alone exceeds them once in hundreds of millions of runs.
		allowed := 6*math.Sqrt(sent*load*(1-load)) + 1e-9
		require.InDelta(t, load*sent, float64(got[i]), allowed, "priority %d with %v healthy", i, healthy)
	}
}
