package federation

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
)

// serveTaggedMap is serveMap with a tag; it counts how often the map was served whole.
func (p *peer) serveTaggedMap(own *bundle.Bundle, tag string, document []byte) (whole *int) {
	whole = new(int)
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/bundles" {
			_, _ = w.Write(own.Marshal())
			return
		}
		w.Header().Set("ETag", `"`+tag+`"`)
		if r.Header.Get("If-None-Match") == `"`+tag+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		*whole++
		_, _ = w.Write(document)
	})
	return whole
}

// serveMap has a peer serve its own bundle and, as a hub, a map.
func (p *peer) serveMap(own *bundle.Bundle, document []byte) {
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bundles" {
			_, _ = w.Write(document)
			return
		}
		_, _ = w.Write(own.Marshal())
	})
}

// awaitRequest waits until the peer was asked once more.
func (p *peer) awaitRequest(t testing.TB) {
	t.Helper()
	select {
	case <-p.asked:
	case <-time.After(patience):
		t.Fatal("the peer is not asked")
	}
}

// peer is a bundle endpoint of another cluster, on loopback.
type peer struct {
	*httptest.Server
	mu      sync.Mutex
	cert    tls.Certificate
	handler http.HandlerFunc
	// statements answers for those, which are no requests for the bundle; nil: the endpoint makes none.
	statements http.HandlerFunc
	requests   []*http.Request
	asked      chan struct{}
}

// newPeer starts an endpoint that presents an SVID of the authority and serves a document.
func newPeer(t testing.TB, a *federationtest.Authority, b *bundle.Bundle) *peer {
	t.Helper()
	p := &peer{cert: a.SVID(t), asked: make(chan struct{}, 1)}
	p.serve(b)
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/statements") {
			p.state(w, r)
			return
		}
		p.mu.Lock()
		handler := p.handler
		p.requests = append(p.requests, r)
		p.mu.Unlock()
		select {
		case p.asked <- struct{}{}:
		default:
		}
		handler(w, r)
	}))
	p.Config.ErrorLog = hclog.NewNullLogger().StandardLogger(nil)
	p.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{p.cert}}, nil
	}}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

// state answers a request for statements.
func (p *peer) state(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	handler := p.statements
	p.mu.Unlock()
	if handler == nil {
		handler = http.NotFound
	}
	handler(w, r)
}

func (p *peer) answer(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = h
}

// serve serves a bundle as an endpoint should, with a strong ETag.
func (p *peer) serve(b *bundle.Bundle) {
	document := b.Marshal()
	sum := sha256.Sum256(document)
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", fmt.Sprintf("%q", hex.EncodeToString(sum[:8])))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
	})
}

func (p *peer) present(t testing.TB, a *federationtest.Authority) {
	cert := a.SVID(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cert = cert
}

// count is how many requests there were.
func (p *peer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.requests)
}
