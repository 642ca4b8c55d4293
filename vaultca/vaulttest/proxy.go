package vaulttest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Fault is what a [Proxy] does with a request.
type Fault func(http.ResponseWriter, *http.Request)

// Proxy stands before a Vault.
type Proxy struct {
	Address, CAFile string

	fault   atomic.Pointer[Fault]
	seen    atomic.Pointer[chan *http.Request]
	through http.Handler
	broken  chan struct{} // a word for each request that met a fault
}

// NewProxy starts a proxy that lets everything through at first.
func NewProxy(t testing.TB, v *Vault) *Proxy {
	t.Helper()
	to, err := url.Parse(v.Address)
	require.NoError(t, err)
	raw, err := os.ReadFile(v.CAFile)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(raw))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	silent := log.New(io.Discard, "", 0)
	p := &Proxy{broken: make(chan struct{}, 1000)}
	p.through = &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: transport, ErrorLog: silent,
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := p.fault.Load(); fault != nil {
			select {
			case p.broken <- struct{}{}:
			default:
			}
			(*fault)(w, r)
			return
		}
		if seen := p.seen.Load(); seen != nil {
			select {
			case *seen <- r.Clone(context.WithoutCancel(r.Context())):
			default:
			}
		}
		p.through.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = silent
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	p.Address, p.CAFile = server.URL, filepath.Join(t.TempDir(), "proxy-ca.pem")
	require.NoError(
		t,
		os.WriteFile(
			p.CAFile,
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			0o600,
		),
	)
	return p
}

// Break meets each request with a fault from now on.
func (p *Proxy) Break(f Fault) { p.fault.Store(&f) }

// Only is a fault for the requests whose paths end in suffix; the others are let through.
func (p *Proxy) Only(suffix string, f Fault) Fault {
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, suffix) {
			f(w, r)
			return
		}
		p.through.ServeHTTP(w, r)
	}
}

// Heal lets everything through again.
func (p *Proxy) Heal() { p.fault.Store(nil) }

// Watch returns copies of the requests that are let through from now on, without their bodies' content; a thousand at
// most wait.
func (p *Proxy) Watch() <-chan *http.Request {
	seen := make(chan *http.Request, 1000)
	p.seen.Store(&seen)
	return seen
}

// Broken has a word for each request that met a fault.
func (p *Proxy) Broken() <-chan struct{} { return p.broken }

// Status answers with an HTTP status and an error as Vault writes it.
func Status(code int) Fault {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"errors":["the proxy fails on purpose"]}`)
	}
}

// Answer answers 200 with a body.
func Answer(body string) Fault {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

// Hang never answers, until the client gives up, which a server learns once it has read the request.
func Hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// Cut closes the connection in the middle of an answer.
func Cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"data":{"certificate":"-----BEGIN`)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// Flood answers with more than anybody should read.
func Flood(w http.ResponseWriter, r *http.Request) {
	block := make([]byte, 64<<10)
	for i := range block {
		block[i] = ' '
	}
	for r.Context().Err() == nil {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}
