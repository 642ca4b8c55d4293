package routing

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	hints    *prometheus.CounterVec
	renewals *prometheus.CounterVec
	lapsed   prometheus.Counter
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
			Help: "Instances that this member removed as leader because their lease lapsed.",
		}),
	}
	instances := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_routing_instances",
		Help: "Instances registered.",
	}, m.countInstances)
	if r == nil {
		return out, nil
	}
	for _, c := range []prometheus.Collector{out.hints, out.renewals, out.lapsed, instances} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *Manager) countInstances() float64 {
	n := 0
	for _, err := range Instances.All(m.store.View(), "") {
		if err != nil {
			return float64(n)
		}
		n++
	}
	return float64(n)
}

func (m *Manager) countHint(p Plan) {
	result := hintOffered
	if p.Reason != "" {
		result = hintNobody
	}
	for _, priority := range p.Priorities {
		if priority.Panic && priority.Load+priority.DegradedLoad > 0 {
			result = hintPanic
		}
	}
	m.metrics.hints.WithLabelValues(result).Inc()
}
