package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// elections counts how often a member of the cluster has begun to lead.
func (c *cluster) elections() (n int) {
	for _, p := range c.members {
		n += strings.Count(p.logs(), "this member leads")
	}
	return n
}

// overload sends calls of each kind to a member, each from as many goroutines, and returns how many were answered and
// refused. The client does not repeat calls, and every refusal has to be one of the member's admission, with advice
// when to try again.
func overload(t *testing.T, p *process, callers []workload, domain string) (answered, refused map[string]int) {
	const (
		conns      = 4   // of each caller
		concurrent = 400 // of each kind
		calls      = 5   // of each goroutine
	)
	var all []*grpc.ClientConn
	for _, w := range callers {
		tls := credentials.NewTLS(tlsconfig.MTLSClientConfig(w, w.bundle, tlsconfig.AuthorizeAny()))
		for range conns {
			conn, err := grpc.NewClient(p.api, grpc.WithTransportCredentials(tls), grpc.WithDisableRetry())
			require.NoError(t, err)
			defer conn.Close()
			all = append(all, conn)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	var serial atomic.Int64
	kinds := map[string]func(conn *grpc.ClientConn) error{
		"read": func(conn *grpc.ClientConn) error {
			_, err := ententev1.NewRoutingServiceClient(conn).GetHint(ctx, &ententev1.GetHintRequest{
				Service: "web", Locality: &ententev1.Locality{Region: "r", Zone: "z"},
			})
			return err
		},
		"write": func(conn *grpc.ClientConn) error {
			n := serial.Add(1)
			_, err := ententev1.NewRoutingServiceClient(conn).RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{
				Instance: &ententev1.Instance{
					Service: "web", Address: fmt.Sprintf("10.1.0.%d:80", 1+n%100),
					Weight:   uint32(1 + n%1000), //nolint:gosec // G115: small
					Locality: &ententev1.Locality{Region: "r", Zone: "z"}, SpiffeId: "spiffe://" + domain + "/web",
				},
			})
			return err
		},
		"sign": func(conn *grpc.ClientConn) error {
			_, err := ententev1.NewSVIDServiceClient(conn).IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{
				SpiffeId: "spiffe://" + domain + "/web", Audience: []string{"db"},
			})
			return err
		},
	}
	var tasks sync.WaitGroup
	var mu sync.Mutex
	answered, refused = map[string]int{}, map[string]int{}
	for kind, call := range kinds {
		for i := range concurrent {
			tasks.Go(func() {
				for range calls {
					err := call(all[i%len(all)])
					mu.Lock()
					switch {
					case err == nil:
						answered[kind]++
					case advised(err):
						refused[kind]++
					default:
						t.Errorf("a call of the kind %s fails without advice: %v", kind, err)
					}
					mu.Unlock()
				}
			})
		}
	}
	tasks.Wait()
	return answered, refused
}

// advised reports whether a call was refused with the time after which to repeat it.
func advised(err error) bool {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return status.Code(err) == codes.ResourceExhausted && info.GetRetryDelay().AsDuration() > 0
		}
	}
	return false
}

// TestNoLoadCausesAnElection: callers with 400 calls of each kind under way at the leader, many times what it takes on,
// move the lead nowhere, and each call that it refuses has advice when to try again. An election that has another
// cause, on a machine that stops for seconds, does not repeat: one of a few rounds is without.
func TestNoLoadCausesAnElection(t *testing.T) {
	const rounds = 4
	c := newCluster(t, "eu", 3, "")
	var callers []workload
	for i := range 4 {
		id := fmt.Sprintf("spiffe://%s/caller/%d", c.domain, i)
		for _, grant := range []*ententev1.Grant{
			{Role: ententev1.Role_ROLE_DISCOVERY, SpiffeId: id, TrustDomain: c.domain},
			{Role: ententev1.Role_ROLE_ISSUER, SpiffeId: id, TrustDomain: c.domain, PathPrefix: "/web"},
		} {
			_, err := c.members[0].socket().Access().GrantRole(t.Context(), &ententev1.GrantRoleRequest{Grant: grant})
			require.NoError(t, err)
		}
		callers = append(callers, issue(t, c.members[0], id))
	}
	require.NoError(t, register(t.Context(), c.members[0], c.domain, "web", 1))
	for round := 1; ; round++ {
		leader, before := c.leader(), c.elections()
		leader.waitReady()
		answered, refused := overload(t, leader, callers, c.domain)
		after := c.elections()
		t.Logf("round %d: answered %v, refused %v, %d elections", round, answered, refused, after-before)
		for kind := range map[string]bool{"read": true, "write": true, "sign": true} {
			require.NotZero(t, answered[kind], "what is admitted is answered: %s", kind)
		}
		require.NotZero(t, refused["write"], "it was no overload")
		if after == before && !t.Failed() {
			return
		}
		require.Less(t, round, rounds, "every round had an election")
	}
}
