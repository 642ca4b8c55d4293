package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health is what 'entente agent health' prints.
type Health struct {
	Ready bool `json:"ready"`
	// Reason is why the agent is not ready.
	Reason   string `json:"reason,omitempty"`
	SPIFFEID string `json:"spiffe_id,omitempty"`
	// Expiry is the end of the agent's own SVID.
	Expiry *time.Time `json:"expiry,omitempty"`
	// Entries and SVIDs are how many the agent has. NextExpiry is the end of the SVID that ends first.
	Entries    int        `json:"entries"`
	SVIDs      int        `json:"svids"`
	NextExpiry *time.Time `json:"next_expiry,omitempty"`
}

// health returns the present state.
func (a *agent) health() Health {
	h := Health{Reason: "the agent has no valid SVID of its own: its log has the reason"}
	if id := a.node.ID(); !id.IsZero() {
		h.SPIFFEID = id.String()
	}
	if end := a.node.Expiry(); !end.IsZero() {
		h.Expiry = &end
		h.Ready = time.Now().Before(end)
	}
	if why := a.refused.Load(); why != nil { // its SVIDs are valid until they expire, and the last ones
		h.Ready, h.Reason = false, "the cluster refuses the agent: "+*why
	}
	if h.Ready {
		h.Reason = ""
	}
	var first time.Time
	if h.Entries, h.SVIDs, first = a.cache.Counts(); !first.IsZero() {
		h.NextExpiry = &first
	}
	return h
}

// metrics are those of an agent.
type metrics struct {
	a            *agent
	registry     *prometheus.Registry
	attestations *prometheus.CounterVec
	pushes       *prometheus.CounterVec
}

func newMetrics(a *agent) *metrics {
	m := &metrics{
		a: a, registry: prometheus.NewRegistry(),
		attestations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_agent_attestations_total",
			Help: "Looks at what a workload is, by result: ok and failed; none counts attested workloads without an " +
				"entry.",
		}, []string{"result"}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_agent_messages_total", Help: "Messages sent on streams of workloads, by method.",
		}, []string{"method"}),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.attestations, m.pushes,
		gauge("entente_agent_entries", "Registration entries of the agent.", func(h Health) float64 {
			return float64(h.Entries)
		}, a),
		gauge("entente_agent_svids", "Valid X509-SVIDs that the agent has for its entries.", func(h Health) float64 {
			return float64(h.SVIDs)
		}, a),
		gauge("entente_agent_expiry_seconds", "When the agent's own X509-SVID ends, in seconds since 1970; 0 before "+
			"the "+
			"agent was attested.", func(h Health) float64 {
			if h.Expiry == nil {
				return 0
			}
			return float64(h.Expiry.Unix())
		}, a),
	)
	return m
}

func gauge(name, help string, value func(Health) float64, a *agent) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		return value(a.health())
	})
}

func (m *metrics) attested(result string) { m.attestations.WithLabelValues(result).Inc() }

func (m *metrics) pushed(method string) { m.pushes.WithLabelValues(method).Inc() }

// handler serves /live, /ready, /health and /metrics.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if h := m.a.health(); !h.Ready {
			http.Error(w, h.Reason, http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m.a.health()) // the reader has gone
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

// ReadHealth returns the health of the agent with an admin socket.
func ReadHealth(ctx context.Context, socket string) (Health, error) {
	caller := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	defer caller.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/health", nil)
	if err != nil {
		return Health{}, err
	}
	answer, err := caller.Do(request)
	if err != nil {
		return Health{}, fmt.Errorf("no agent answers at %s: %w; start it, or name its admin_socket with "+
			"--agent-socket",
			socket, err)
	}
	defer answer.Body.Close()
	var h Health
	err = json.NewDecoder(io.LimitReader(answer.Body, 1<<16)).Decode(&h)
	return h, err
}
