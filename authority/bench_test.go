package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// slice is the time for which issuing and its baseline take turns, so that other load on the machine affects both
// alike.
const slice = 500 * time.Millisecond

// BenchmarkIssueX509SVID compares issuing X509-SVIDs over gRPC, TLS and loopback, with client, guard, audit log and
// lints, with x509.CreateCertificate alone on a request that was checked before. "ratio" is the part of the bare rate
// that remains, on the same cores in the same run. "issued/s" is the rate of all members together.
func BenchmarkIssueX509SVID(b *testing.B) {
	key, ca := selfSignedCA(b, time.Now(), plan.DefaultCATTL)
	public, err := svid.ParseCSR(csrOf(b))
	require.NoError(b, err)
	template := leafTemplate(spiffeid.RequireFromString(workload(1)), time.Now(), time.Hour)
	bare := func() error {
		_, err := x509.CreateCertificate(rand.Reader, template, ca, public, key)
		return err
	}
	for _, members := range []int{1, 3} {
		b.Run(fmt.Sprintf("members=%d/single", members), func(b *testing.B) {
			benchmarkIssuing(b, members, 1, bare, func(client ententev1.SVIDServiceClient) func() error {
				request := &ententev1.IssueX509SVIDRequest{SpiffeId: workload(1), Csr: csrOf(b)}
				return func() error {
					_, err := client.IssueX509SVID(context.Background(), request)
					return err
				}
			})
		})
		b.Run(fmt.Sprintf("members=%d/batch=%d", members, issue.MaxBatch), func(b *testing.B) {
			benchmarkIssuing(b, members, issue.MaxBatch, bare, func(client ententev1.SVIDServiceClient) func() error {
				batch := &ententev1.IssueX509SVIDsRequest{TrustDomain: home.Name()}
				for i := range issue.MaxBatch {
					batch.Requests = append(batch.Requests,
						&ententev1.IssueX509SVIDRequest{SpiffeId: workload(i), Csr: csrOf(b)})
				}
				return func() error {
					response, err := client.IssueX509SVIDs(context.Background(), batch)
					for _, result := range response.GetResults() {
						if result.GetSvid() == nil {
							return fmt.Errorf("not issued: %v", result.GetFailure())
						}
					}
					return err
				}
			})
		})
	}
}

// BenchmarkIssueJWTSVID compares issuing JWT-SVIDs with a bare ECDSA signature of a digest.
func BenchmarkIssueJWTSVID(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(b, err)
	digest := sha256.Sum256([]byte("claims"))
	bare := func() error {
		_, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		return err
	}
	for _, members := range []int{1, 3} {
		b.Run(fmt.Sprintf("members=%d/single", members), func(b *testing.B) {
			benchmarkIssuing(b, members, 1, bare, func(client ententev1.SVIDServiceClient) func() error {
				request := jwtRequest("db")
				return func() error {
					_, err := client.IssueJWTSVID(context.Background(), request)
					return err
				}
			})
		})
		b.Run(fmt.Sprintf("members=%d/batch=%d", members, issue.MaxBatch), func(b *testing.B) {
			benchmarkIssuing(b, members, issue.MaxBatch, bare, func(client ententev1.SVIDServiceClient) func() error {
				batch := &ententev1.IssueJWTSVIDsRequest{TrustDomain: home.Name()}
				for i := range issue.MaxBatch {
					batch.Requests = append(batch.Requests,
						&ententev1.IssueJWTSVIDRequest{SpiffeId: workload(i), Audience: []string{"db"}})
				}
				return func() error {
					response, err := client.IssueJWTSVIDs(context.Background(), batch)
					for _, result := range response.GetResults() {
						if result.GetSvid() == nil {
							return fmt.Errorf("not issued: %v", result.GetFailure())
						}
					}
					return err
				}
			})
		})
	}
}

// benchmarkIssuing takes b.N turns of issuing for a slice of time and running the baseline for another.
func benchmarkIssuing(
	b *testing.B, members, batch int, bare func() error, issuing func(ententev1.SVIDServiceClient) func() error,
) {
	calls := make([]func() error, 0, 2*members)
	for _, client := range signingMembers(b, members) {
		calls = append(calls, issuing(client))
	}
	workers := 4 * runtime.GOMAXPROCS(0) // enough that none of the cores waits for the network
	var issued, bares int
	var issuingFor, bareFor time.Duration
	b.ResetTimer()
	for range b.N {
		n, d := inParallel(b, workers, func(worker int) error { return calls[worker%len(calls)]() })
		issued, issuingFor = issued+n*batch, issuingFor+d
		n, d = inParallel(b, runtime.GOMAXPROCS(0), func(int) error { return bare() })
		bares, bareFor = bares+n, bareFor+d
	}
	rate, bareRate := float64(issued)/issuingFor.Seconds(), float64(bares)/bareFor.Seconds()
	b.ReportMetric(0, "ns/op") // the time of a turn is not a result
	b.ReportMetric(rate, "issued/s")
	b.ReportMetric(bareRate, "bare/s")
	b.ReportMetric(rate/bareRate, "ratio")
}

// inParallel runs do in several workers for a slice of time, and returns the number of runs and the time.
func inParallel(b *testing.B, workers int, do func(worker int) error) (n int, took time.Duration) {
	var count atomic.Int64
	var group sync.WaitGroup
	begun := time.Now()
	for worker := range workers {
		group.Go(func() {
			for time.Since(begun) < slice {
				if err := do(worker); err != nil {
					b.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	group.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return int(count.Load()), time.Since(begun)
}

// signingMembers starts members that all sign, each with an audit log in a file, and connects to each.
func signingMembers(b *testing.B, n int) []ententev1.SVIDServiceClient {
	stores := []*raftstore.Store{}
	if n == 1 {
		stores = append(stores, raftstoretest.New(b))
	} else {
		cluster := raftstoretest.NewCluster(b, n)
		for i := range n {
			stores = append(stores, cluster.Store(i))
		}
	}
	f := newFleet(b, func(c *Config) {
		c.Audit = auditFile(b)
		c.IssueRate, c.IssueBurst = 1e9, 1e9 // checked for each request, and never reached
	}, stores...)
	f.advance(plan.HintsBeforeUse*plan.DefaultRefreshHint + time.Second)
	var clients []ententev1.SVIDServiceClient
	for _, c := range f.nodes {
		a := serveAPI(b, c, c.config.Audit.(*audit.Log))
		if len(clients) == 0 {
			a.grant(ci, "/web")
		}
		// The grant has to be known here too.
		_, err := c.store.Read(context.Background(), raftstore.ReadOptions{Linearizable: true})
		require.NoError(b, err)
		clients = append(clients, a.dial(ci))
	}
	return clients
}
