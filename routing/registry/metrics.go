package registry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/raftstore"
)

type metrics struct {
	renewals *prometheus.CounterVec
	lapsed   prometheus.Counter
}

// Labels of renewals.
const (
	renewalTaken   = "taken"
	renewalRefused = "refused"
)

func newMetrics(r prometheus.Registerer, store *raftstore.Store, catalog *Catalog) (*metrics, error) {
	m := &metrics{
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_routing_renewals_total",
			Help: "Renewals of leases at this member, by result.",
		}, []string{"result"}),
		lapsed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_routing_lapsed_total",
			Help: "Leases that ran out while this member was the leader.",
		}),
	}
	gauge := func(name, help string, value func() (int, error)) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			n, err := value()
			if err != nil {
				return 0
			}
			return float64(n)
		})
	}
	instances := gauge("entente_routing_instances", "Registered instances.", func() (int, error) {
		c, err := catalog.Counts(store.View())
		return c.Instances, err
	})
	imported := gauge(
		"entente_routing_imported_instances",
		"Instances imported from other clusters, including expired ones.",
		func() (int, error) {
			c, err := catalog.Counts(store.View())
			return c.Imported, err
		},
	)
	leases := gauge(
		"entente_routing_leases",
		"Leases whose instances are not yet removed, including those that ran out.",
		func() (n int, _ error) {
			for _, err := range Leases.All(store.View(), "") {
				if err != nil {
					return n, nil
				}
				n++
			}
			return n, nil
		},
	)
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.renewals, m.lapsed, instances, imported, leases} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
