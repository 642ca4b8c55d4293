package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// manyBundles is the size that a member has to cope with: as many foreign trust domains as one cluster is meant to
// federate with.
const manyBundles = 10_000

// foreignBundle makes the bundle of a foreign trust domain: one X.509 authority and one JWT authority.
func foreignBundle(tb testing.TB, td spiffeid.TrustDomain, key *ecdsa.PrivateKey) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: td.Name()}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(tb, err)
	root, err := x509.ParseCertificate(der)
	require.NoError(tb, err)
	b := spiffebundle.New(td)
	b.AddX509Authority(root)
	require.NoError(tb, b.AddJWTAuthority("key-1", key.Public()))
	b.SetSequenceNumber(1)
	b.SetRefreshHint(time.Hour)
	document, err := b.Marshal()
	require.NoError(tb, err)
	return document
}

// BenchmarkRestartWithManyBundles restarts a member, as a process, that keeps 10,000 foreign bundles, and reports how
// long it takes until it is ready and hands all of them out, and the most memory that it had. The targets are 10 s and
// 512 MiB.
func BenchmarkRestartWithManyBundles(b *testing.B) {
	c := newCluster(b, "eu", 1, "")
	p := c.members[0]
	ctx, cancel := context.WithTimeout(b.Context(), 20*waitLimit)
	defer cancel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(b, err)
	federation := p.socket().Federation()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for i := range manyBundles {
		td := spiffeid.RequireTrustDomainFromString(fmt.Sprintf("d%05d.example.org", i))
		group.Go(func() error {
			_, err := federation.CreateRelationship(groupCtx, &ententev1.CreateRelationshipRequest{
				Relationship: &ententev1.Relationship{
					// No peer responds: an outage of all peers at once is the worst case for a restart.
					TrustDomain: td.Name(), Url: "https://127.0.0.1:1/",
					Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
					EndpointSpiffeId: "spiffe://" + td.Name() + "/entente/bundle-endpoint",
				},
				BootstrapBundle: foreignBundle(b, td, key),
			})
			return err
		})
	}
	require.NoError(b, group.Wait())

	var peak float64
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		p.kill()
		b.StartTimer()
		p.run()
		p.waitReady()
		require.Equal(b, manyBundles+1, countBundles(ctx, b, p))
		b.StopTimer()
		peak = max(peak, peakMemory(b, p))
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/restart")
	b.ReportMetric(peak, "MiB-peak")
	b.ReportMetric(0, "ns/op")
}

func countBundles(ctx context.Context, tb testing.TB, p *process) int {
	client := p.socket().Bundles()
	n, token := 0, ""
	for {
		page, err := client.ListBundles(ctx, &ententev1.ListBundlesRequest{PageToken: token})
		require.NoError(tb, err)
		n += len(page.GetBundles())
		if token = page.GetNextPageToken(); token == "" {
			return n
		}
	}
}

var highWater = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peakMemory is the most memory that the process has had resident, in MiB.
func peakMemory(tb testing.TB, p *process) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(tb, err)
	match := highWater.FindSubmatch(status)
	require.NotNil(tb, match, "no VmHWM in /proc: this benchmark needs Linux")
	kib, err := strconv.Atoi(string(match[1]))
	require.NoError(tb, err)
	return float64(kib) / 1024
}
