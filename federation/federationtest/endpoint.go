package federationtest

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
)

// ServeTaggedMap is serveMap with a tag; it counts how often the map was served whole.
func (p *Endpoint) ServeTaggedMap(own *bundle.Bundle, tag string, document []byte) (whole *int) {
	whole = new(int)
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
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

// ServeMap has a peer serve its own bundle and, as a hub, a map.
func (p *Endpoint) ServeMap(own *bundle.Bundle, document []byte) {
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bundles" {
			_, _ = w.Write(document)
			return
		}
		_, _ = w.Write(own.Marshal())
	})
}

// AwaitRequest waits for another request.
func (p *Endpoint) AwaitRequest(t testing.TB) {
	t.Helper()
	select {
	case <-p.Asked:
	case <-time.After(WaitLimit):
		t.Fatal("the peer is not asked")
	}
}

// Endpoint is a bundle endpoint of another cluster, on loopback.
type Endpoint struct {
	*httptest.Server
	Mu      sync.Mutex
	Cert    tls.Certificate
	handler http.HandlerFunc
	// Statements answers for those, which are no requests for the bundle; nil: the endpoint makes none.
	Statements http.HandlerFunc
	Received   []*http.Request
	Asked      chan struct{}
}

// NewEndpoint starts an endpoint that presents an SVID of the authority and serves a document.
func NewEndpoint(t testing.TB, a *Authority, b *bundle.Bundle) *Endpoint {
	t.Helper()
	p := &Endpoint{Cert: a.SVID(t), Asked: make(chan struct{}, 1)}
	p.Serve(b)
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/statements") {
			p.answerStatements(w, r)
			return
		}
		p.Mu.Lock()
		handler := p.handler
		p.Received = append(p.Received, r)
		p.Mu.Unlock()
		select {
		case p.Asked <- struct{}{}:
		default:
		}
		handler(w, r)
	}))
	p.Config.ErrorLog = hclog.NewNullLogger().StandardLogger(nil)
	p.TLS = &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			p.Mu.Lock()
			defer p.Mu.Unlock()
			return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{p.Cert}}, nil
		},
	}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

// answerStatements answers a request for statements.
func (p *Endpoint) answerStatements(w http.ResponseWriter, r *http.Request) {
	p.Mu.Lock()
	handler := p.Statements
	p.Mu.Unlock()
	if handler == nil {
		handler = http.NotFound
	}
	handler(w, r)
}

// Handle replaces the handler of all requests.
func (p *Endpoint) Handle(h http.HandlerFunc) {
	p.Mu.Lock()
	defer p.Mu.Unlock()
	p.handler = h
}

// Serve makes the endpoint serve a bundle with a strong ETag.
func (p *Endpoint) Serve(b *bundle.Bundle) {
	document := b.Marshal()
	sum := sha256.Sum256(document)
	p.Handle(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", fmt.Sprintf("%q", hex.EncodeToString(sum[:8])))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
	})
}

// Present makes the endpoint present a new X509-SVID of an authority.
func (p *Endpoint) Present(t testing.TB, a *Authority) {
	cert := a.SVID(t)
	p.Mu.Lock()
	defer p.Mu.Unlock()
	p.Cert = cert
}

// Requests is how many requests there were.
func (p *Endpoint) Requests() int {
	p.Mu.Lock()
	defer p.Mu.Unlock()
	return len(p.Received)
}
