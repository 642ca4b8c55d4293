package node

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

// check is one condition of readiness. Its error is one sentence on what is missing.
type check struct {
	name string
	test func() error
}

// operations is the HTTP listener for those who run the member: /metrics, /live and /ready. It speaks plain text, and
// stands on loopback unless configured otherwise.
type operations struct {
	server *http.Server
	ready  atomic.Pointer[[]check]
	failed atomic.Pointer[error]
}

func newOperations(registry *prometheus.Registry, log hclog.Logger) *operations {
	o := &operations{}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /live", o.live)
	mux.HandleFunc("GET /ready", o.readiness)
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

// serve answers until ctx ends.
func (o *operations) serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = o.server.Close() }) // Serve says how it ended
	defer stop()
	if err := o.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("operations listener: %w", err)
	}
	return nil
}

// setReady hands over the conditions of readiness; before, and after setReady(nil), the member is not ready.
func (o *operations) setReady(checks []check) {
	if checks == nil {
		o.ready.Store(nil)
		return
	}
	o.ready.Store(&checks)
}

// fail marks the member as beyond repair: /live then says why, and a supervisor restarts it.
func (o *operations) fail(err error) { o.failed.CompareAndSwap(nil, &err) }

func (o *operations) live(w http.ResponseWriter, _ *http.Request) {
	if err := o.failed.Load(); err != nil {
		http.Error(w, fmt.Sprintf("failed: %v", *err), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "live")
}

func (o *operations) readiness(w http.ResponseWriter, _ *http.Request) {
	checks := o.ready.Load()
	if checks == nil {
		http.Error(w, "not ready: starting or stopping", http.StatusServiceUnavailable)
		return
	}
	var text strings.Builder
	code := http.StatusOK
	for _, c := range *checks {
		if err := c.test(); err != nil {
			code = http.StatusServiceUnavailable
			fmt.Fprintf(&text, "%s: %v\n", c.name, err)
			continue
		}
		fmt.Fprintf(&text, "%s: ok\n", c.name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprint(w, text.String())
}
