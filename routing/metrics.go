package routing

import (
	"github.com/ententehq/entente/routing/plan"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	hints          *prometheus.CounterVec
	renewals       *prometheus.CounterVec
	lapsed         prometheus.Counter
	imported       *prometheus.CounterVec
	exported       *prometheus.CounterVec
	importsExpired prometheus.Counter
}

// Labels of the counters below.
const (
	hintOffered = "offered"
	hintPanic   = "panic"
	hintNobody  = "nobody"

	renewalTaken   = "taken"
	renewalRefused = "refused"
)

func newMetrics(r prometheus.Registerer, m *Manager) (*metrics, error) {
	out := &metrics{
		hints: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_routing_hints_total",
			Help: "Hints given, by whether instances were offered, offered in a panic, or nobody could be offered.",
		}, []string{"result"}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_routing_renewals_total",
			Help: "Renewals of leases at this member, by result.",
		}, []string{"result"}),
		lapsed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_routing_lapsed_total",
			Help: "Leases that this member, as leader, found to have run out.",
		}),
	}
	out.imported = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_routing_import_sets_total",
		Help: "Sets of instances that other clusters exported to this member, by what came of them.",
	}, []string{"result"})
	out.exported = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_routing_export_sets_total",
		Help: "Sets of instances that this member sent to other clusters, by step: sent, acknowledged or refused.",
	}, []string{"result"})
	out.importsExpired = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "entente_routing_imports_expired_total",
		Help: "Trust domains whose imports this member, as leader, found to have expired.",
	})
	instances := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_routing_instances",
		Help: "Instances registered.",
	}, m.countInstances)
	imported := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_routing_imported_instances",
		Help: "Instances imported from other clusters, expired ones included.",
	}, m.countImported)
	leases := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_routing_leases",
		Help: "Leases, held or run out, whose instances are not removed yet.",
	}, m.countLeases)
	if r == nil {
		return out, nil
	}
	for _, c := range []prometheus.Collector{out.hints, out.renewals, out.lapsed, out.imported, out.exported, out.importsExpired, instances, imported, leases} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *Manager) countInstances() float64 {
	all, err := m.counts.of(m.store.View(), m.now())
	if err != nil {
		return 0
	}
	return float64(all.instances)
}

func (m *Manager) countImported() float64 {
	all, err := m.counts.of(m.store.View(), m.now())
	if err != nil {
		return 0
	}
	return float64(all.imported)
}

func (m *Manager) countLeases() float64 {
	n := 0
	for _, err := range Leases.All(m.store.View(), "") {
		if err != nil {
			break
		}
		n++
	}
	return float64(n)
}

// resultOf is the label under which a hint with this plan is counted.
func resultOf(p plan.Plan) string {
	result := hintOffered
	if p.Reason != "" {
		result = hintNobody
	}
	for _, priority := range p.Priorities {
		if priority.Panic && priority.Load+priority.DegradedLoad > 0 {
			result = hintPanic
		}
	}
	return result
}

func (m *Manager) countHint(h *cachedHint) { m.metrics.hints.WithLabelValues(h.result).Inc() }
