package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	netbytes "encoding/binary"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// restingHint is the refresh hint of peers that a cluster at rest polls.
const restingHint = 5 * time.Minute

// manyPeers serves the bundle endpoints of many foreign trust domains from one listener: each has a loopback address of
// its own, which selects it, and presents its own X509-SVID under its own root.
type manyPeers struct {
	port               string
	peers              []*lightPeer
	polls, notModified atomic.Int64
}

type lightPeer struct {
	td       spiffeid.TrustDomain
	cert     tls.Certificate
	document []byte
}

func (p *lightPeer) endpointID() string {
	return "spiffe://" + p.td.Name() + "/entente/bundle-endpoint"
}

func newLightPeer(tb testing.TB, td spiffeid.TrustDomain, key *ecdsa.PrivateKey) *lightPeer {
	tb.Helper()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(
			1,
		), Subject: pkix.Name{CommonName: td.Name()}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{td.ID().URL()},
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	require.NoError(tb, err)
	parsed, err := x509.ParseCertificate(rootDER)
	require.NoError(tb, err)
	p := &lightPeer{td: td}
	id, err := url.Parse(p.endpointID())
	require.NoError(tb, err)
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(
			2,
		), Subject: pkix.Name{CommonName: "endpoint"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{id},
	}, parsed, key.Public(), key)
	require.NoError(tb, err)
	p.cert = tls.Certificate{Certificate: [][]byte{leaf}, PrivateKey: key}
	b := spiffebundle.New(td)
	b.AddX509Authority(parsed)
	require.NoError(tb, b.AddJWTAuthority("key-1", key.Public()))
	b.SetSequenceNumber(1)
	b.SetRefreshHint(restingHint)
	p.document, err = b.Marshal()
	require.NoError(tb, err)
	return p
}

// serveManyPeers serves n of them.
func serveManyPeers(tb testing.TB, n int) *manyPeers {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	m := &manyPeers{}
	for i := range n {
		m.peers = append(
			m.peers, newLightPeer(tb, spiffeid.RequireTrustDomainFromString(fmt.Sprintf("d%05d.example.org", i)), key),
		)
	}
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp4", "0.0.0.0:0") // all loopback addresses
	require.NoError(tb, err)
	_, m.port, err = net.SplitHostPort(l.Addr().String())
	require.NoError(tb, err)
	server := &http.Server{
		Handler: http.HandlerFunc(m.serve), ReadHeaderTimeout: waitLimit, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return &m.at(hello.Conn.LocalAddr()).cert, nil
			},
		},
	}
	go func() { _ = server.ServeTLS(l, "", "") }()
	tb.Cleanup(func() { _ = server.Close() })
	return m
}

// address is that of peer i: 127.1.0.0 and on.
func (m *manyPeers) address(i int) string {
	ip := netbytes.BigEndian.AppendUint32(nil, 127<<24|1<<16+uint32(i)) //nolint:gosec // some thousand
	return net.JoinHostPort(net.IP(ip).String(), m.port)
}

func (m *manyPeers) at(local net.Addr) *lightPeer {
	return m.peers[netbytes.BigEndian.Uint32(local.(*net.TCPAddr).IP.To4())-(127<<24|1<<16)]
}

func (m *manyPeers) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		http.NotFound(w, r) // it makes no statements
		return
	}
	p := m.at(r.Context().Value(http.LocalAddrContextKey).(net.Addr))
	tag := `"` + p.td.Name() + `"`
	w.Header().Set("ETag", tag)
	m.polls.Add(1)
	if r.Header.Get("If-None-Match") == tag {
		m.notModified.Add(1)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(p.document)
}

// trustAll makes a relationship with each of them.
func (m *manyPeers) trustAll(ctx context.Context, tb testing.TB, p *process) {
	tb.Helper()
	federation := p.socket().Federation()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for i, peer := range m.peers {
		group.Go(func() error {
			for {
				_, err := federation.CreateRelationship(ctx, &ententev1.CreateRelationshipRequest{
					Relationship: &ententev1.Relationship{
						TrustDomain: peer.td.Name(), Url: "https://" + m.address(i) + "/",
						Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
						EndpointSpiffeId: peer.endpointID(),
					},
					BootstrapBundle: peer.document,
				})
				switch status.Code(err) {
				case codes.Unavailable: // three members on a busy machine elect another leader now and then
				case codes.AlreadyExists: // by the previous call, whose response was lost
					return nil
				default:
					return err
				}
			}
		})
	}
	require.NoError(tb, group.Wait())
}

// cpuTime is how much of a core the process has used so far.
func cpuTime(tb testing.TB, p *process) time.Duration {
	tb.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	require.NoError(tb, err)
	_, after, found := strings.Cut(string(stat), ") ")
	require.True(tb, found, "this benchmark needs Linux")
	fields := strings.Fields(after)
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime, proc(5)
		n, err := strconv.ParseInt(field, 10, 64)
		require.NoError(tb, err)
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100) // USER_HZ
}

// BenchmarkRest is a cluster at rest that keeps 10,000 relationships, polled with hints of five minutes: the part of a
// core that its busiest member uses over one whole such interval, in which each of them is polled once, and the most
// memory of any. Targets: 5 percent, 512 MiB. A single member has all of the polls. Nothing changes meanwhile, and so
// nothing may be written.
func BenchmarkRest(b *testing.B) {
	for _, members := range []int{3, 1} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) { rest(b, members) })
	}
}

func rest(b *testing.B, members int) {
	peers := serveManyPeers(b, manyBundles)
	c := newCluster(b, "eu", members, "")
	ctx, cancel := context.WithTimeout(b.Context(), 30*waitLimit)
	defer cancel()
	p := c.leader()
	began := time.Now()
	peers.trustAll(ctx, b, p)
	b.Logf("%d relationships made in %s with %s of a core", manyBundles, time.Since(began), cpuTime(b, p))
	eventually(b, "each peer was polled", func() error {
		if n := peers.polls.Load(); n < manyBundles {
			return fmt.Errorf("%d polls so far", n)
		}
		return nil
	})
	written := revisionOf(ctx, b, p)
	used := make([]time.Duration, members)
	var passed time.Duration
	var polls int64
	for range b.N {
		at, asked := time.Now(), peers.notModified.Load()
		for i, p := range c.members {
			used[i] -= cpuTime(b, p)
		}
		interval := time.NewTimer(restingHint)
		select {
		case <-interval.C:
		case <-ctx.Done():
			b.Fatal(ctx.Err())
		}
		for i, p := range c.members {
			used[i] += cpuTime(b, p)
		}
		passed, polls = passed+time.Since(at), polls+peers.notModified.Load()-asked
	}
	b.ReportMetric(float64(revisionOf(ctx, b, p)-written), "writes")
	var peak float64
	for _, p := range c.members {
		peak = max(peak, peakMemory(b, p))
	}
	b.ReportMetric(100*slices.Max(used).Seconds()/passed.Seconds(), "%-core")
	b.ReportMetric(float64(polls)/passed.Seconds(), "polls/s")
	b.ReportMetric(peak, "MiB-peak")
	b.ReportMetric(0, "ns/op")
}

// revisionOf is the member's revision, which every write raises.
func revisionOf(ctx context.Context, tb testing.TB, p *process) uint64 {
	tb.Helper()
	answer, err := p.socket().Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
	require.NoError(tb, err)
	return answer.GetRevision()
}
