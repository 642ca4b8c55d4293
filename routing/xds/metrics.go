package xds

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	builds, updates, unsendable, rejected *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, c *Cache) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "entente_routing_xds_" + name, Help: help}, labels)
	}
	m := &metrics{
		builds: counter(
			"builds_total",
			"Resources built, by type. Streams of the same variant share them.", "type",
		),
		updates: counter("answers_total", "Responses sent on xDS streams, by type.", "type"),
		unsendable: counter(
			"unsendable_total",
			"Updates that were not sent, because they could not be built or clients would reject them, by type.",
			"type",
		),
		rejected: counter(
			"refused_total",
			"Updates that clients rejected (NACK), by type and kind of client.", "type", "kind",
		),
	}
	streams := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_routing_xds_streams", Help: "Open xDS streams.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.streams))
	})
	variants := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_routing_xds_variants",
		Help: "Variants of resources, each for one kind of client, locality and set of rights.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.variants))
	})
	if r == nil {
		return m, nil
	}
	for _, collector := range []prometheus.Collector{m.builds, m.updates, m.unsendable, m.rejected, streams, variants} {
		if err := r.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}
