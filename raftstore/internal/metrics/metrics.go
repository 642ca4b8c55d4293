// Package metrics has the Prometheus metrics of a store, and Raft's own.
package metrics

import (
	"errors"
	"fmt"
	"sync"
	"time"

	gometrics "github.com/hashicorp/go-metrics/compat"
	raftsink "github.com/hashicorp/go-metrics/compat/prometheus"
	"github.com/prometheus/client_golang/prometheus"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// Gauges returns present values of a store.
type Gauges struct {
	Revision func() uint64
	Leads    func() bool
}

// Metrics are a store's own.
type Metrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector

	commands  *prometheus.CounterVec
	entrySize prometheus.Histogram
	commit    prometheus.Histogram
	diskCalls prometheus.Histogram
}

// New registers the metrics. If registerer is nil, they count and are not exported.
func New(registerer prometheus.Registerer, g Gauges) (*Metrics, error) {
	m := &Metrics{
		registerer: registerer,
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_raftstore_commands_total",
			Help: "Commands that this member decided on as the leader, by result.",
		}, []string{"result"}),
		entrySize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "entente_raftstore_entry_commands", Help: "Commands that share one log entry.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "entente_raftstore_commit_seconds", Help: "From handing an entry to Raft until it is applied here.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		diskCalls: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "entente_raftstore_disk_call_seconds", Help: "Calls to the log store.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 4, 11),
		}),
	}
	m.collectors = []prometheus.Collector{
		m.commands, m.entrySize, m.commit, m.diskCalls,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_raftstore_revision", Help: "The revision that this member has applied.",
		}, func() float64 { return float64(g.Revision()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_raftstore_leader", Help: "1 on the member that leads.",
		}, func() float64 {
			if g.Leads() {
				return 1
			}
			return 0
		}),
	}
	if registerer == nil {
		return m, nil
	}
	for i, c := range m.collectors {
		if err := registerer.Register(c); err != nil {
			for _, registered := range m.collectors[:i] {
				registerer.Unregister(registered)
			}
			return nil, fmt.Errorf("register the store's metrics: %w", err)
		}
	}
	return m, registerRaftMetrics(registerer)
}

// raftMetricsTaken is set once Raft's metrics, which are those of the process, have a registerer.
var raftMetricsTaken = struct {
	sync.Mutex
	taken bool
}{}

// raftMetricsExpiry is how long one of Raft's gauges is exported after it was last set. Some are only set on events.
const raftMetricsExpiry = time.Hour

func registerRaftMetrics(registerer prometheus.Registerer) error {
	raftMetricsTaken.Lock()
	defer raftMetricsTaken.Unlock()
	if raftMetricsTaken.taken {
		return nil
	}
	sink, err := raftsink.NewPrometheusSinkFrom(
		raftsink.PrometheusOpts{Registerer: registerer, Expiration: raftMetricsExpiry, Name: "entente_raft"},
	)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("register Raft's metrics: %w", err)
	}
	config := gometrics.DefaultConfig("")
	config.EnableHostname = false
	config.EnableRuntimeMetrics = false // client_golang has its own
	if _, err := gometrics.NewGlobal(config, sink); err != nil {
		return fmt.Errorf("collect Raft's metrics: %w", err)
	}
	raftMetricsTaken.taken = true
	return nil
}

// Unregister removes the metrics from their registerer.
func (m *Metrics) Unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
}

// DiskCall counts one call to the log store.
func (m *Metrics) DiskCall(took time.Duration) { m.diskCalls.Observe(took.Seconds()) }

// Rejected implements commit.Observer.
func (m *Metrics) Rejected(r *ententev1.ProposeResponse) {
	switch r.GetResult() {
	case ententev1.ProposeResponse_RESULT_CONFLICT:
		m.commands.WithLabelValues("rejected").Inc()
	case ententev1.ProposeResponse_RESULT_BUSY:
		m.commands.WithLabelValues("busy").Inc()
	}
}

// Committed implements commit.Observer.
func (m *Metrics) Committed(outcomes []machine.Outcome, took time.Duration) {
	m.entrySize.Observe(float64(len(outcomes)))
	m.commit.Observe(took.Seconds())
	for _, o := range outcomes {
		if o.Applied {
			m.commands.WithLabelValues("applied").Inc()
		} else {
			m.commands.WithLabelValues("conflict").Inc()
		}
	}
}
