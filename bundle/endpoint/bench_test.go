package endpoint_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// BenchmarkEndpoint compares the endpoint on kept TLS connections with a bare net/http TLS server that answers a
// constant of the same size. The two take turns of a few hundred requests, so that noise hits both; "ratio" is the
// endpoint's rate over the bare server's.
func BenchmarkEndpoint(b *testing.B) {
	h, bundles := bundletest.NewHandler(b)
	address, roots := bundletest.ServeWeb(b, h)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)

	body := bundles["eu.example.org"].Marshal()
	bare := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
	ca := bundletest.NewAuthority(b, bundletest.Home)
	bare.TLS = &tls.Config{Certificates: []tls.Certificate{*ca.SVID(b, bundletest.EndpointID.String())}}
	bare.StartTLS()
	defer bare.Close()
	barePool := x509.NewCertPool()
	barePool.AddCert(ca.Cert)

	const workers, turn = 4, 400
	client := func(pool *x509.CertPool) *http.Client {
		return &http.Client{Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: pool},
			MaxIdleConnsPerHost: workers,
		}}
	}
	run := func(c *http.Client, url string, n int) time.Duration {
		start := time.Now()
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range n / workers {
					response, err := c.Get(url)
					if err != nil {
						b.Error(err)
						return
					}
					if n, err := io.Copy(io.Discard, response.Body); err != nil || n != int64(len(body)) ||
						response.StatusCode != http.StatusOK {
						b.Errorf("%d: %d bytes, %v", response.StatusCode, n, err)
					}
					_ = response.Body.Close()
				}
			})
		}
		wg.Wait()
		return time.Since(start)
	}
	ours, theirs := client(pool), client(barePool)
	oursURL, theirsURL := bundletest.LocalhostURL(address, "/"), strings.Replace(bare.URL, "127.0.0.1", "localhost", 1)
	run(ours, oursURL, turn)
	run(theirs, theirsURL, turn)

	var oursTime, theirsTime time.Duration
	requests := 0
	b.ResetTimer()
	for i := 0; requests < b.N; i++ {
		if i%2 == 0 {
			oursTime += run(ours, oursURL, turn)
			theirsTime += run(theirs, theirsURL, turn)
		} else {
			theirsTime += run(theirs, theirsURL, turn)
			oursTime += run(ours, oursURL, turn)
		}
		requests += turn
	}
	b.StopTimer()
	require.Positive(b, oursTime)
	b.ReportMetric(float64(theirsTime)/float64(oursTime), "ratio")
	b.ReportMetric(float64(requests)/oursTime.Seconds(), "endpoint-req/s")
	b.ReportMetric(float64(requests)/theirsTime.Seconds(), "bare-req/s")
}
