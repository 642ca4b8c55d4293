package access_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/admission"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

// BenchmarkAdmission compares p99 of admitted calls at ten times the rated load with that at the rated load, which is
// as many calls as run at a time. Callers begin one after the other within a second, in which nothing is measured, and
// a refused one waits as long as it is advised to. Both are measured in one run, in turns, with both ends in one
// process.
func BenchmarkAdmission(b *testing.B) {
	const overload, callers, warm, phase = 10, 20, time.Second, 2 * time.Second
	for name, c := range map[string]struct {
		load admission.Load
		call func(context.Context, *grpc.ClientConn) error
	}{
		"reads": {admission.Reads, func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := v1.NewDomainServiceClient(conn).ListDomains(ctx, &v1.ListDomainsRequest{})
			return err
		}},
		"writes": {admission.Writes, func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := v1.NewDomainServiceClient(conn).CreateDomain(ctx, create("pay.test")) // with its audit lines
			return err
		}},
	} {
		b.Run(name, func(b *testing.B) {
			h := build(b)
			var conns []*grpc.ClientConn
			for i := range callers {
				id := spiffeid.RequireFromString(fmt.Sprintf("spiffe://eu.test/caller-%d", i))
				_, err := v1.NewAccessServiceClient(h.dial(b, root)).GrantRole(b.Context(), &v1.GrantRoleRequest{
					Grant: &v1.Grant{Role: grant.Operator, SpiffeId: id.String()},
				})
				require.NoError(b, err)
				conns = append(conns, h.dial(b, access.SVIDCaller(id)))
			}
			rated := admission.Capacities(runtime.GOMAXPROCS(0))[c.load].Running
			took := map[int][]time.Duration{}
			refused := 0
			measure := func(concurrent int) {
				ctx, cancel := context.WithTimeout(b.Context(), warm+phase)
				defer cancel()
				start := time.Now()
				var mu sync.Mutex
				var all sync.WaitGroup
				for i := range concurrent {
					all.Go(func() {
						time.Sleep(warm * time.Duration(i) / time.Duration(concurrent))
						for ctx.Err() == nil {
							begun := time.Now()
							err := c.call(b.Context(), conns[i%callers])
							d := time.Since(begun)
							mu.Lock()
							switch code := status.Code(err); {
							case begun.Sub(start) < warm:
							case code == codes.OK:
								took[concurrent] = append(took[concurrent], d)
							case code == codes.ResourceExhausted:
								refused++
							default:
								b.Errorf("a call failed: %v", err)
							}
							mu.Unlock()
							if err != nil {
								select {
								case <-ctx.Done():
								case <-time.After(retryDelay(err)):
								}
							}
						}
					})
				}
				all.Wait()
			}
			for b.Loop() {
				measure(rated)
				measure(overload * rated)
			}
			before, with := p99(took[rated]), p99(took[overload*rated])
			b.ReportMetric(float64(before.Microseconds())/1e3, "ms-rated")
			b.ReportMetric(float64(with.Microseconds())/1e3, "ms-overload")
			b.ReportMetric(float64(with)/float64(before), "ratio")
			b.ReportMetric(float64(refused)/float64(b.N), "refused/op")
		})
	}
}

func p99(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)*99/100]
}

// retryDelay returns the advice of an error.
func retryDelay(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if advice, ok := d.(interface {
			GetRetryDelay() *durationpb.Duration
		}); ok {
			return advice.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
