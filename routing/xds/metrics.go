package xds

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	builds, pushes, unsendable *prometheus.CounterVec
	refused                    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, c *Cache) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "entente_routing_xds_" + name, Help: help}, labels)
	}
	m := &metrics{
		builds:     counter("builds_total", "Resources built, by type; streams that are alike share them.", "type"),
		pushes:     counter("answers_total", "Answers sent on xDS streams, by type.", "type"),
		unsendable: counter("unsendable_total", "Updates that were not sent, because they could not be built or clients would refuse them, by type.", "type"),
		refused:    counter("refused_total", "Updates that clients refused (NACK), by type and kind of client.", "type", "kind"),
	}
	streams := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_routing_xds_streams", Help: "Open xDS streams.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.streams))
	})
	variants := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_routing_xds_variants", Help: "Kinds of client, localities and sets of rights that resources are built for.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(len(c.variants))
	})
	if r == nil {
		return m, nil
	}
	for _, collector := range []prometheus.Collector{m.builds, m.pushes, m.unsendable, m.refused, streams, variants} {
		if err := r.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}
