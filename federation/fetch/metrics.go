package fetch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of polling. Labels are bounded: the results are the reasons that there are.
type metrics struct {
	fetches   *prometheus.CounterVec
	duration  prometheus.Histogram
	failovers *prometheus.CounterVec
	owned     prometheus.Gauge
	queues    *prometheus.GaugeVec
}

func newMetrics(kept func() int, registerer prometheus.Registerer) (*metrics, error) {
	ms := &metrics{
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_federation_fetches_total", Help: "Fetches of foreign bundles by this member, by result.",
		}, []string{"result"}),
		failovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_federation_endpoint_failovers_total",
			Help: "Endpoints that failed where the relationship has another one to try, by reason.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "entente_federation_fetch_duration_seconds",
			Help:    "Duration of fetches of foreign bundles, storing included.",
			Buckets: []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
		}),
		owned: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_federation_polls_owned", Help: "Relationships that this member fetches for the cluster.",
		}),
		queues: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_federation_fetches",
			Help: "Fetches of foreign bundles by this member, running or waiting for a place: of peers that answer " +
				"promptly (fast), and of the others (slow).",
		}, []string{"queue", "state"}),
	}
	connections := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_federation_connections_kept",
		Help: "Connections to bundle endpoints that are kept open for the next fetch.",
	}, func() float64 { return float64(kept()) })
	if registerer == nil {
		return ms, nil
	}
	for _, c := range []prometheus.Collector{
		ms.fetches, ms.failovers, ms.duration, ms.owned, ms.queues, connections,
	} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return ms, nil
}

func (ms *metrics) fetched(result string, took time.Duration) {
	ms.fetches.WithLabelValues(result).Inc()
	ms.duration.Observe(took.Seconds())
}

func (ms *metrics) queue(name string, q *fetchQueue) {
	ms.queues.WithLabelValues(name, "running").Set(float64(q.running))
	ms.queues.WithLabelValues(name, "waiting").Set(float64(len(q.waiting)))
}
