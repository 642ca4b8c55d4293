package federation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
)

// hostileCase is the next action of a peer whose stored bundle has sequence 5.
type hostileCase struct {
	name string
	do   func(t *testing.T, p *federationtest.Endpoint)
	want string
}

// logText is the log of a room. It is safe for concurrent use.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// playHostile tests that the stored bundle is kept, and that the metric, the log and the relationship have the name of
// the refusal.
func playHostile(t *testing.T, us *federationtest.Authority, cases []hostileCase) {
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log logText
			r := newRoom(t, func(c *Config) {
				c.Client.Timeout = 2 * time.Second
				c.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
			})
			p := federationtest.NewEndpoint(t, us, us.Bundle(t, 5))
			r.create(t, spiffeRelationship(us, p), us.Bundle(t, 5))
			require.Equal(t, "unchanged", r.refresh(t, us.TrustDomain.Name()).GetLastResult(), "it behaves at first")
			test.do(t, p)
			r.refresh(t, us.TrustDomain.Name())
			r.leader.Beat()
			shown, err := r.service.GetRelationship(t.Context(),
				&ententev1.GetRelationshipRequest{TrustDomain: us.TrustDomain.Name()})
			require.NoError(t, err)
			require.Equal(t, test.want, shown.GetLastResult(), shown.GetLastError())
			require.NotEmpty(t, shown.GetLastError())
			require.True(t, r.stored(t, us.TrustDomain.Name()).Equal(us.Bundle(t, 5)), "the last good bundle is kept")
			require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, shown.GetFreshness())
			require.InDelta(t, 1, federationtest.Metric(t, r.registry, "entente_federation_fetches_total", "result",
				test.want), 0)
			require.Contains(t, log.String(),
				"[WARN]  bundle not refreshed; the stored one is kept: trust_domain=us.example.org result="+test.want)
		})
	}
}

// TestHostileDocuments tests documents that an authenticated endpoint serves.
func TestHostileDocuments(t *testing.T) {
	us := federationtest.NewAuthority(t, "us.example.org")
	next := us.Rotated(t)
	serve := func(status int, document []byte) func(*testing.T, *federationtest.Endpoint) {
		return func(_ *testing.T, p *federationtest.Endpoint) {
			p.Handle(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = w.Write(document)
			})
		}
	}
	redirect := func(to func(p *federationtest.Endpoint) string) func(*testing.T, *federationtest.Endpoint) {
		return func(_ *testing.T, p *federationtest.Endpoint) {
			p.Handle(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to(p), http.StatusFound) })
		}
	}
	endless := func(head map[string]string, part string, pause time.Duration) func(*testing.T,
		*federationtest.Endpoint) {
		return func(_ *testing.T, p *federationtest.Endpoint) {
			p.Handle(func(w http.ResponseWriter, r *http.Request) {
				for name, value := range head {
					w.Header().Set(name, value)
				}
				for r.Context().Err() == nil {
					if _, err := w.Write([]byte(part)); err != nil {
						return
					}
					if pause > 0 {
						_ = http.NewResponseController(w).Flush()
						select {
						case <-time.After(pause):
						case <-r.Context().Done():
						}
					}
				}
			})
		}
	}
	playHostile(t, us, []hostileCase{
		{
			"a lower sequence",
			func(t *testing.T, p *federationtest.Endpoint) { p.Serve(us.Bundle(t, 4, next)) },
			"rollback",
		},
		{
			"the same sequence with other content",
			func(t *testing.T, p *federationtest.Endpoint) { p.Serve(us.Bundle(t, 5, next)) },
			"equivocation",
		},
		{"another domain's authority", func(t *testing.T, p *federationtest.Endpoint) {
			other := federationtest.NewAuthority(t, "other.example.org")
			b := us.Bundle(t, 6, other)
			p.Serve(b)
		}, "other_trust_domain"},
		{"no list of keys", serve(200, []byte(`{"spiffe_sequence":6}`)), "no_keys"},
		{
			"a million keys",
			serve(200, []byte(`{"spiffe_sequence":6,"keys":[`+strings.Repeat(`{},`, 1<<20)+`{}]}`)),
			"too_large",
		},
		{
			"as many keys as fit",
			serve(200, []byte(`{"spiffe_sequence":6,"keys":[`+strings.Repeat(`{},`, 300_000)+`{}]}`)),
			"too_many_keys",
		},
		{
			"a gigabyte, as announced",
			endless(map[string]string{"Content-Length": "1073741824"}, strings.Repeat(" ", 4096), 0),
			"too_large",
		},
		{"a chunked body that never ends", endless(nil, strings.Repeat(" ", 4096), 0), "too_large"},
		{"a byte now and then", endless(nil, " ", 100*time.Millisecond), "timeout"},
		{
			"a redirect without end",
			redirect(func(p *federationtest.Endpoint) string { return p.URL + "/again" }),
			"too_many_redirects",
		},
		{
			"a redirect to http",
			redirect(func(p *federationtest.Endpoint) string { return strings.Replace(p.URL, "https", "http", 1) }),
			"bad_redirect",
		},
		{"status 500 with a good bundle", serve(500, us.Bundle(t, 6, next).Marshal()), "bad_status"},
	})
}

// TestHostileCertificates tests certificates with which an endpoint must not authenticate.
func TestHostileCertificates(t *testing.T) {
	us := federationtest.NewAuthority(t, "us.example.org")
	present := func(by *federationtest.Authority, adjust func(*x509.Certificate)) func(*testing.T,
		*federationtest.Endpoint) {
		return func(t *testing.T, p *federationtest.Endpoint) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			require.NoError(t, err)
			template, err := x509.ParseCertificate(us.SVID(t).Certificate[0])
			require.NoError(t, err)
			adjust(template)
			der, err := x509.CreateCertificate(rand.Reader, template, by.Cert, key.Public(), by.Key)
			require.NoError(t, err)
			p.Mu.Lock()
			p.Cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
			p.Mu.Unlock()
		}
	}
	id := func(s string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.URIs = []*url.URL{spiffeid.RequireFromString(s).URL()} }
	}
	playHostile(t, us, []hostileCase{
		{"another domain's SVID", func(t *testing.T, p *federationtest.Endpoint) {
			p.Present(t, federationtest.NewAuthority(t, "other.example.org"))
		}, "no_bundle"},
		{
			"another authority of the domain",
			func(t *testing.T, p *federationtest.Endpoint) { p.Present(t, us.Rotated(t)) },
			"untrusted_svid",
		},
		{"another ID of the domain", present(us, id("spiffe://us.example.org/other")), "unexpected_endpoint_id"},
		{
			"an expired SVID",
			present(us, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }),
			"svid_expired",
		},
		{
			"an SVID of tomorrow",
			present(us, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }),
			"svid_not_yet_valid",
		},
		{
			"a CA certificate",
			present(us, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }),
			"not_an_svid",
		},
	})
}

// TestUnusableKeysAreIgnored tests that unknown keys, and certificates that are no CA or have expired, do not affect
// the valid keys beside them.
func TestUnusableKeysAreIgnored(t *testing.T) {
	us := federationtest.NewAuthority(t, "us.example.org")
	next, gone := us.Rotated(t), federationtest.NewAuthorityUntil(t, "us.example.org", time.Now().Add(-time.Hour))
	good := string(us.Bundle(t, 6, next, gone).Marshal())
	leaf := base64.StdEncoding.EncodeToString(us.SVID(t).Certificate[0])
	strange := fmt.Sprintf(`"keys":[{"kty":"AKP","use":"x509-svid"},{"use":"jwt-svid"},`+
		`{"kty":"EC","use":"x509-svid","x5c":[%q]},{"kty":"oct","k":"AA"},`, leaf)
	r := newRoom(t)
	p := federationtest.NewEndpoint(t, us, us.Bundle(t, 5))
	r.create(t, spiffeRelationship(us, p), us.Bundle(t, 5))
	p.Handle(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Replace(good, `"keys":[`, strange, 1)))
	})
	out := r.refresh(t, "us.example.org")
	require.Equal(t, "stored", out.GetLastResult(), out.GetLastError())
	require.Len(t, r.stored(t, "us.example.org").X509Authorities(), 3)
	require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, out.GetFreshness(),
		"an expired authority verifies nothing, and spoils nothing")

	p.Handle(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"spiffe_sequence":7,"keys":[]}`))
	})
	out = r.refresh(t, "us.example.org")
	require.Equal(t, "stored", out.GetLastResult(),
		"a bundle without keys means that nothing of the domain is trusted")
	p.Serve(us.Bundle(t, 8))
	require.Equal(t, "untrusted_svid", r.refresh(t, "us.example.org").GetLastResult(), "not even its endpoint")
}
