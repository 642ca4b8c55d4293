// Package operations is the HTTP listener for operators: /metrics, /live and /ready. It serves plain text without
// authentication, and listens on loopback by default.
//
// /live fails only when the member cannot recover, so a supervisor restarts it. /ready fails while one of the
// conditions of [Server.SetReady] does, and names it. /ready/write does the same for [Server.SetReadyToWrite].
package operations

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one condition of readiness. The error of Test is one sentence that names what is missing.
type Check struct {
	Name string
	Test func() error
}

// Server serves /metrics, /live and /ready.
type Server struct {
	server *http.Server
	ready  atomic.Pointer[[]Check]
	writes atomic.Pointer[[]Check]
	failed atomic.Pointer[error]
}

// New returns a server for the metrics of registry. The member is live, and not ready.
func New(registry *prometheus.Registry, log hclog.Logger) *Server {
	o := &Server{}
	mux := http.NewServeMux()
	metrics := promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, metrics))
	mux.HandleFunc("GET /live", o.live)
	mux.HandleFunc("GET /ready", readiness(&o.ready))
	mux.HandleFunc("GET /ready/write", readiness(&o.writes))
	o.server = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	return o
}

// Serve serves until ctx ends.
func (o *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = o.server.Close() }) // Serve returns the reason
	defer stop()
	if err := o.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("operations listener: %w", err)
	}
	return nil
}

// SetReady sets the conditions of readiness. Before, and after SetReady(nil), the member is not ready.
func (o *Server) SetReady(checks []Check) { set(&o.ready, checks) }

// SetReadyToWrite sets the conditions under which the member can commit, sign and audit, in the same way.
func (o *Server) SetReadyToWrite(checks []Check) { set(&o.writes, checks) }

func set(to *atomic.Pointer[[]Check], checks []Check) {
	if checks == nil {
		to.Store(nil)
		return
	}
	to.Store(&checks)
}

// Fail marks the member as failed. /live then returns the error of the first call.
func (o *Server) Fail(err error) { o.failed.CompareAndSwap(nil, &err) }

// Failed returns the error of the first call of Fail, or nil.
func (o *Server) Failed() error {
	if err := o.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (o *Server) live(w http.ResponseWriter, _ *http.Request) {
	if err := o.Failed(); err != nil {
		http.Error(w, fmt.Sprintf("failed: %v", err), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "live")
}

func readiness(of *atomic.Pointer[[]Check]) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { answer(w, of.Load()) }
}

// answer returns 200 if there are conditions and all hold, and names those that do not.
func answer(w http.ResponseWriter, checks *[]Check) {
	if checks == nil {
		http.Error(w, "not ready: starting or stopping", http.StatusServiceUnavailable)
		return
	}
	text, ok := test(*checks)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprint(w, text)
}

// test returns a line for each condition, and whether all hold.
func test(checks []Check) (text string, ok bool) {
	var out strings.Builder
	ok = true
	for _, c := range checks {
		if err := c.Test(); err != nil {
			ok = false
			fmt.Fprintf(&out, "%s: %v\n", c.Name, err)
			continue
		}
		fmt.Fprintf(&out, "%s: ok\n", c.Name)
	}
	return out.String(), ok
}

// Report returns what /live, /ready and /ready/write answer.
func (o *Server) Report() []byte {
	var out strings.Builder
	if err := o.Failed(); err != nil {
		fmt.Fprintf(&out, "failed: %v\n", err)
	}
	for _, one := range []struct {
		path   string
		checks *[]Check
	}{{"/ready", o.ready.Load()}, {"/ready/write", o.writes.Load()}} {
		fmt.Fprintf(&out, "%s:\n", one.path)
		if one.checks != nil {
			text, _ := test(*one.checks)
			out.WriteString(text)
		}
	}
	return []byte(out.String())
}
