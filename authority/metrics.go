package authority

import (
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	manager    *Manager
	signatures *prometheus.CounterVec
	forced     *prometheus.CounterVec
	chains     *prometheus.CounterVec
	failures   *prometheus.CounterVec
}

var (
	expiryDesc = prometheus.NewDesc("entente_authority_not_after_timestamp_seconds",
		"When the newest authority of this member expires, by trust domain, kind and state.", []string{"trust_domain", "kind", "state"}, nil)
	sequenceDesc = prometheus.NewDesc("entente_authority_bundle_sequence",
		"Sequence of a hosted domain's bundle as this member has it.", []string{"trust_domain"}, nil)
	ageDesc = prometheus.NewDesc("entente_authority_bundle_age_seconds",
		"Time since the content of a hosted domain's bundle last changed.", []string{"trust_domain"}, nil)
	anchorsDesc = prometheus.NewDesc("entente_authority_anchors",
		"Anchors of the upstream of a hosted domain: published, or pending until an operator approves them.", []string{"trust_domain", "state"}, nil)
	alarmDesc = prometheus.NewDesc("entente_authority_alarm",
		"1 while something about a hosted domain's authorities on this member needs a person: late (its successor should long be prepared), none (it has no active one), silent (it may not sign, since it did not hear from the leader or its clock is off).", []string{"trust_domain", "kind", "alarm"}, nil)
)

func newMetrics(r prometheus.Registerer, m *Manager) (*metrics, error) {
	x := &metrics{
		manager: m,
		signatures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_signatures_total",
			Help: "SVIDs by kind and result: ok, failed, passed_on (another member signed), unaudited (withheld, since the audit log could not be written).",
		}, []string{"kind", "result"}),
		chains: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_statement_chains_total",
			Help: "Times that this member saw the chain of statements on a hosted bundle begin anew (started), or a version without a statement (unstated).",
		}, []string{"trust_domain", "event"}),
		forced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_forced_activations_total",
			Help: "Authorities that became active at their deadline, before every reader of the bundle could know them.",
		}, []string{"trust_domain", "kind"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_authority_failures_total",
			Help: "Failed attempts to bring this member's authorities or its own SVIDs up to date (tend), or to read the tables (read).",
		}, []string{"task"}),
	}
	if r == nil {
		return x, nil
	}
	for _, c := range []prometheus.Collector{x.signatures, x.forced, x.chains, x.failures, x} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// Describe implements [prometheus.Collector].
func (x *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- expiryDesc
	ch <- sequenceDesc
	ch <- ageDesc
	ch <- alarmDesc
	ch <- anchorsDesc
}

// Collect implements [prometheus.Collector], from what this member signs from.
func (x *metrics) Collect(ch chan<- prometheus.Metric) {
	m := x.manager
	now, silent := m.config.Now(), m.canSign() != nil
	x.collectAnchors(ch)
	for td, d := range m.signing.Load().domains {
		name := td.Name()
		if d.bundle != nil {
			sequence, _ := d.bundle.Sequence()
			ch <- prometheus.MustNewConstMetric(sequenceDesc, prometheus.GaugeValue, float64(sequence), name)
			ch <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, now.Sub(d.bundleChanged).Seconds(), name)
		}
		for _, kind := range plan.Kinds {
			newest := plan.Newest(plan.Situation{Member: m.config.Member, Authorities: d.authorities}, kind)
			for state, a := range newest {
				ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(a.NotAfter.Unix()), name, kind.String(), state.String())
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

// collectAnchors counts the anchors of upstreams.
func (x *metrics) collectAnchors(ch chan<- prometheus.Metric) {
	type key struct{ td, state string }
	counts := map[key]float64{}
	for row, err := range table.UpstreamAnchors.All(x.manager.config.Store.View(), "") {
		if err != nil {
			return
		}
		state := "pending"
		if row.Value.GetPublished() {
			state = "published"
		}
		counts[key{row.Value.GetTrustDomain(), state}]++
		counts[key{row.Value.GetTrustDomain(), "pending"}] += 0 // it is there while there is any anchor, for alerts
	}
	for k, n := range counts {
		ch <- prometheus.MustNewConstMetric(anchorsDesc, prometheus.GaugeValue, n, k.td, k.state)
	}
}
