package authority

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
)

// metrics are the metrics of a manager. Those of signatures and statements belong to packages issue and publish.
type metrics struct {
	manager  *Manager
	forced   *prometheus.CounterVec
	failures *prometheus.CounterVec
}

var (
	expiryDesc = prometheus.NewDesc("entente_authority_not_after_timestamp_seconds",
		"Expiry of the newest authority of this member, by trust domain, kind and state.",
		[]string{"trust_domain", "kind", "state"}, nil)
	sequenceDesc = prometheus.NewDesc("entente_authority_bundle_sequence",
		"Sequence of a hosted domain's bundle as this member has it.", []string{"trust_domain"}, nil)
	ageDesc = prometheus.NewDesc("entente_authority_bundle_age_seconds",
		"Time since the content of a hosted domain's bundle last changed.", []string{"trust_domain"}, nil)
	anchorsDesc = prometheus.NewDesc("entente_authority_anchors",
		"Anchors of a hosted domain apart from authorities: of its upstream, published or pending until an operator "+
			"approves them, and the next roots of members, which nothing is below yet (next).",
		[]string{"trust_domain", "state"}, nil)
	alarmDesc = prometheus.NewDesc(
		"entente_authority_alarm",
		"1 while a hosted domain's authorities on this member need an operator: late (the successor of the active "+
			"one is overdue), "+
			"none (there is no active one), silent (it must not sign: no contact to the leader, or a wrong clock).",
		[]string{"trust_domain", "kind", "alarm"},
		nil,
	)
)

func newMetrics(m *Manager) *metrics {
	return &metrics{
		manager: m,
		forced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_forced_activations_total",
			Help: "Authorities that became active at their deadline, before every reader of the bundle could " +
				"know them.",
		}, []string{"trust_domain", "kind"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_failures_total",
			Help: "Failed attempts to update this member's authorities or its own SVIDs (reconcile), or to read the " +
				"tables (read).",
		}, []string{"task"}),
	}
}

// register registers the metrics of a manager that is wired. A nil r is valid.
func (x *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{x.forced, x.failures, x} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register the metrics of authorities: %w", err)
		}
	}
	return nil
}

// Describe implements [prometheus.Collector].
func (x *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- expiryDesc
	ch <- sequenceDesc
	ch <- ageDesc
	ch <- alarmDesc
	ch <- anchorsDesc
}

// Collect implements [prometheus.Collector], from the state of the issuer.
func (x *metrics) Collect(ch chan<- prometheus.Metric) {
	x.collectAnchors(ch)
	issuer := x.manager.issuer
	now, silent := x.manager.config.Now(), issuer.CanSign() != nil
	for td, d := range issuer.State().Domains {
		name := td.Name()
		if d.Bundle != nil {
			sequence, _ := d.Bundle.Sequence()
			ch <- prometheus.MustNewConstMetric(sequenceDesc, prometheus.GaugeValue, float64(sequence), name)
			age := now.Sub(d.BundleChanged).Seconds()
			ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, age, name)
		}
		for _, kind := range plan.Kinds {
			newest := plan.Newest(plan.Situation{Member: x.manager.config.Member, Authorities: d.Authorities}, kind)
			for state, a := range newest {
				ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(a.NotAfter.Unix()),
					name, kind.String(), state.String())
			}
			for alarm, on := range plan.Alarms(now, newest, silent) {
				value := 0.0
				if on {
					value = 1
				}
				ch <- prometheus.MustNewConstMetric(alarmDesc, prometheus.GaugeValue, value, name, kind.String(), alarm)
			}
		}
	}
}

// collectAnchors counts the anchors that are kept apart from authorities.
func (x *metrics) collectAnchors(ch chan<- prometheus.Metric) {
	type key struct{ td, state string }
	counts := map[key]float64{}
	for row, err := range table.UpstreamAnchors.All(x.manager.config.Store.View(), "") {
		if err != nil {
			return
		}
		state := "pending"
		switch {
		case row.Value.GetSuccessorOf() != "":
			state = "next"
		case row.Value.GetPublished():
			state = "published"
		}
		counts[key{row.Value.GetTrustDomain(), state}]++
		// For alerts, the series exists as soon as there is an anchor.
		counts[key{row.Value.GetTrustDomain(), "pending"}] += 0
	}
	for k, n := range counts {
		ch <- prometheus.MustNewConstMetric(anchorsDesc, prometheus.GaugeValue, n, k.td, k.state)
	}
}
