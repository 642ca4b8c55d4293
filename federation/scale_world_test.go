package federation

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"hash/fnv"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

// The parts of a simulation. Each of [TestScale] runs in a bubble of testing/synctest, where time passes only when
// everybody waits: what takes time in it is the network's latency and the waiting that Entente does by itself, and
// never the machine that it runs on.
const (
	// simDomain is the parent of the names of all simulated clusters.
	simDomain = "sim.example"
	// simHint is the refresh hint of every bundle by default.
	simHint = 5 * time.Minute
	// A link has a latency of its own each way, between these.
	simNearest, simFarthest = time.Millisecond, 150 * time.Millisecond
	// simAuthorities is how many members' anchors a bundle has, and how many JWT keys: those of a cluster of three.
	simAuthorities = 3
)

// world is a network of clusters under virtual time.
type world struct {
	t    *testing.T
	seed string
	web  simCertificate
	// hint is the refresh hint of every bundle.
	hint time.Duration

	mu    sync.Mutex
	hosts map[string]host
	lines *lines
	open  map[*line]bool
	dials int
}

// host is a cluster as other clusters reach it.
type host interface {
	// accept opens a stream from a member of another cluster, and returns the accepting member.
	accept(from *traffic, home spiffeid.TrustDomain, member string) (*pipeEnd, string, error)
	// serve answers at the bundle endpoint.
	serve(w http.ResponseWriter, r *http.Request)
	sent() *traffic
}

// simCertificate is a key with its self-signed certificate.
type simCertificate struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newSimCertificate(t testing.TB, adjust func(*x509.Certificate)) simCertificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "simulated"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	adjust(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return simCertificate{key, cert}
}

// newWorld returns a world that ends with the bubble's test.
func newWorld(t *testing.T, seed string) *world {
	t.Helper()
	w := &world{
		t:     t,
		seed:  seed,
		hint:  simHint,
		hosts: map[string]host{},
		open:  map[*line]bool{},
		lines: &lines{arriving: make(chan net.Conn), closed: make(chan struct{})},
	}
	w.web = newSimCertificate(t, func(c *x509.Certificate) {
		c.DNSNames = []string{"*." + simDomain}
		c.KeyUsage |= x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	server := &http.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.host(r.Host).serve(rw, r) }),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
			Certificates: []tls.Certificate{{Certificate: [][]byte{w.web.cert.Raw}, PrivateKey: w.web.key}},
		},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // as for the client
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, lineKey{},
				c)
		},
		ErrorLog: log.New(quiet{}, "", 0), ReadHeaderTimeout: time.Minute,
	}
	// A kept connection would stand for many polls, and what the simulation needs for one is ten times what a member
	// does.
	server.SetKeepAlivesEnabled(false)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.ServeTLS(w.lines, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
		for w.cutAll() > 0 {
			<-time.After(time.Second)
		}
	})
	return w
}

type (
	lineKey struct{}
	quiet   struct{}
)

func (quiet) Write(p []byte) (int, error) { return len(p), nil }

func (w *world) add(name string, h host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[name] = h
}

func (w *world) host(name string) host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hosts[name]
}

// latency returns the latency between two clusters, which is the same in each run with the same seed.
func (w *world) latency(a, b string) time.Duration {
	if a > b {
		a, b = b, a
	}
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, w.seed, "/", a, "/", b)
	sum := sha256.Sum256(h.Sum(nil))
	share := float64(uint32(sum[0])<<24|uint32(sum[1])<<16|uint32(sum[2])<<8|uint32(sum[3])) / (1 << 32)
	return simNearest + time.Duration(share*float64(simFarthest-simNearest))
}

// handshake waits as long as opening a connection for a stream takes: TCP, TLS 1.3 and the response to the call.
func (w *world) handshake(ctx context.Context, a, b string) error {
	select {
	case <-time.After(6 * w.latency(a, b)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cutAll aborts the polls that are under way, and returns their number.
func (w *world) cutAll() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.open {
		l.cut()
	}
	return len(w.open) + w.dials
}

func (w *world) dialing(more int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials += more
}

// dialer returns a function that opens connections for the polls of one member.
func (w *world) dialer(
	from string,
	sent *traffic,
	polled func(),
) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		to, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		polled()
		other := w.host(to)
		w.dialing(1)
		defer w.dialing(-1)
		select {
		case <-time.After(2 * w.latency(from, to)): // TCP's
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		l, client, server := newLine(w.latency(from, to), func(l *line, kind string, bytes int) {
			sent.count(kind, 2, bytes)
			other.sent().count(kind, 2, bytes)
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.open, l)
		})
		w.mu.Lock()
		w.open[l] = true
		w.mu.Unlock()
		select {
		case w.lines.arriving <- server:
			return client, nil
		case <-w.lines.closed:
			l.cut()
			return nil, net.ErrClosed
		case <-ctx.Done():
			l.cut()
			return nil, ctx.Err()
		}
	}
}

// recordPoll records the result of a poll.
func recordPoll(r *http.Request, kind string) {
	if conn, ok := r.Context().Value(lineKey{}).(*tls.Conn); ok {
		conn.NetConn().(*lineEnd).line.kind.Store(kind)
	}
}

// statusNoted is a response whose status is recorded as the result of a poll.
type statusNoted struct {
	http.ResponseWriter
	status int
}

func (s *statusNoted) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// serveCounted serves a request and records the result.
func serveCounted(w http.ResponseWriter, r *http.Request, serve http.Handler) {
	s := &statusNoted{w, http.StatusOK}
	serve.ServeHTTP(s, r)
	if s.status == http.StatusOK {
		recordPoll(r, kindChanged)
	} else {
		recordPoll(r, kindUnchanged)
	}
}

// serveDocument serves a document with a strong ETag.
func serveDocument(w http.ResponseWriter, r *http.Request, document []byte) {
	if r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	sum := sha256.Sum256(document)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", fmt.Sprintf("%q", hex.EncodeToString(sum[:8])))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
}

// simAuthority creates the bundles of one simulated domain.
type simAuthority struct {
	td      spiffeid.TrustDomain
	hint    time.Duration
	anchors []*x509.Certificate
	keys    []*ecdsa.PrivateKey
}

func (w *world) newAuthority(name string) *simAuthority {
	w.t.Helper()
	a := &simAuthority{td: spiffeid.RequireTrustDomainFromString(name), hint: w.hint}
	for range simAuthorities {
		anchor := newSimCertificate(w.t, func(c *x509.Certificate) { c.URIs = []*url.URL{a.td.ID().URL()} })
		a.anchors = append(a.anchors, anchor.cert)
		a.keys = append(a.keys, anchor.key) // each serves as a JWT key too
	}
	return a
}

// bundle returns the domain's bundle. Each sequence after the first has one authority fewer than the one before, as
// after a distrust.
func (a *simAuthority) bundle(t testing.TB, sequence uint64) *bundle.Bundle {
	t.Helper()
	gone := int(sequence-1) % simAuthorities
	content := bundle.Content{
		X509Authorities: a.anchors[gone:],
		JWTAuthorities:  map[string]crypto.PublicKey{},
		Sequence:        &sequence,
		RefreshHint:     &a.hint,
	}
	for i, key := range a.keys[gone:] {
		content.JWTAuthorities[fmt.Sprintf("%s-%d", strings.Repeat("k", 32), gone+i)] = key.Public()
	}
	b, err := bundle.New(a.td, content)
	require.NoError(t, err)
	return b
}

func (w *world) webRoots() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.web.cert.Raw})
}

// simName returns the name of the i-th cluster. The order of names decides whose dial is kept.
func simName(i int) string { return fmt.Sprintf("c%05d.%s", i, simDomain) }
