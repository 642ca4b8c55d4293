package exchange

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	imported, exported *prometheus.CounterVec
	expired            prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		imported: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_routing_import_sets_total",
			Help: "Sets of instances received from other clusters, by result.",
		}, []string{"result"}),
		exported: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_routing_export_sets_total",
			Help: "Sets of instances that this member sent to other clusters, by step: sent, acknowledged or refused.",
		}, []string{"result"}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_routing_imports_expired_total",
			Help: "Trust domains whose imports expired while this member was the leader.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.imported, m.exported, m.expired} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
