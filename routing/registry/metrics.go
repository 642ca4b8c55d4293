package registry

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/raftstore"
)

type metrics struct {
	renewals *prometheus.CounterVec
	expired  prometheus.Counter
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
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_routing_leases_expired_total",
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
	kept := gauge(
		"entente_routing_kept_instances",
		"Instances that are kept although their leases were lost, until their holders return or they are evicted.",
		func() (int, error) { return countKept(store.View()) },
	)
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.renewals, m.expired, instances, imported, leases, kept} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// countKept counts the kept instances. It reads the instances only if a lease has some.
func countKept(r raftstore.Reader) (n int, _ error) {
	some := false
	for row, err := range Leases.All(r, "") {
		if err != nil {
			return 0, err
		}
		some = some || row.Value.GetKept() > 0
	}
	if !some {
		return 0, nil
	}
	list, err := List(r)
	for _, i := range list {
		if i.Kept {
			n++
		}
	}
	return n, err
}
