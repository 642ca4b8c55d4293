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
	Disk     func() Disk
	// ElectionTimeout is for how long the member waits for a message of the leader.
	ElectionTimeout func() time.Duration
}

// Disk is the state of the disk of the data folder.
type Disk struct {
	Writable bool
	// Median is that of the writes of the last ten seconds.
	Median time.Duration
	// Free and Total are bytes. Without Limited they are not known.
	Free, Total uint64
	Limited     bool
}

// freeRatio is 1 if nothing is known.
func (d Disk) freeRatio() float64 {
	if !d.Limited {
		return 1
	}
	return float64(d.Free) / float64(d.Total)
}

// Metrics are a store's own.
type Metrics struct {
	registerer prometheus.Registerer
	collectors []prometheus.Collector

	commands  *prometheus.CounterVec
	entrySize prometheus.Histogram
	commit    prometheus.Histogram
	diskCalls prometheus.Histogram
	memory    prometheus.Gauge
}

// New returns metrics that count and are not exported. The gauges are not read before [Metrics.Register].
func New(g Gauges) *Metrics {
	m := &Metrics{
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
		memory: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_raftstore_memory_mismatch",
			Help: "1 if this member's state did not match its digest when that was last recomputed, once a day.",
		}),
	}
	m.collectors = []prometheus.Collector{
		m.commands, m.entrySize, m.commit, m.diskCalls, m.memory,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_raftstore_revision", Help: "The revision that this member has applied.",
		}, func() float64 { return float64(g.Revision()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_raftstore_leader", Help: "1 on the member that leads.",
		}, func() float64 { return oneIf(g.Leads()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_raftstore_election_timeout_seconds",
			Help: "How long this member waits for the leader before it starts an election; it follows the load.",
		}, func() float64 { return g.ElectionTimeout().Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_raftstore_disk_writable", Help: "1 while the disk of the data folder accepts writes.",
		}, func() float64 { return oneIf(g.Disk().Writable) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_raftstore_disk_free_ratio", Help: "Free part of the disk of the data folder, from 0 to 1.",
		}, func() float64 { return g.Disk().freeRatio() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "entente_raftstore_disk_median_seconds", Help: "Median time of the disk writes of the last 10 s.",
		}, func() float64 { return g.Disk().Median.Seconds() }),
	}
	return m
}

// Register exports the metrics, and Raft's. If it fails, none of the store's are exported. If registerer is nil, it
// does nothing.
func (m *Metrics) Register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	for i, c := range m.collectors {
		if err := registerer.Register(c); err != nil {
			for _, registered := range m.collectors[:i] {
				registerer.Unregister(registered)
			}
			return fmt.Errorf("register the store's metrics: %w", err)
		}
	}
	m.registerer = registerer
	if err := registerRaftMetrics(registerer); err != nil {
		m.Unregister()
		return err
	}
	return nil
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
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

// Unregister removes the metrics from their registerer, if they have one.
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

// MemoryMatches records whether the state in memory matches its digest.
func (m *Metrics) MemoryMatches(matches bool) {
	if matches {
		m.memory.Set(0)
	} else {
		m.memory.Set(1)
	}
}
