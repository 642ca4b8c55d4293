package vaultca

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/vaultca/vault"
)

// pkiMetrics are those of the upstream.
type pkiMetrics struct {
	up     *prometheus.GaugeVec
	looked *prometheus.GaugeVec
	alarm  *prometheus.GaugeVec
}

func newPKIMetrics(r prometheus.Registerer) (*pkiMetrics, error) {
	m := &pkiMetrics{
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_vaultca_up",
			Help: "1 while the last attempt of that task (sign, anchors, issuer) worked, 0 " +
				"while it did not.",
		}, []string{"trust_domain", "task"}),
		looked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_vaultca_anchors_seen_timestamp_seconds", Help: "When a domain's anchors were last read " +
				"from Vault or their file.",
		}, []string{"trust_domain"}),
		alarm: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_vaultca_alarm",
			Help: "1 while the newest signing certificate needs attention: short (Vault gave less lifetime " +
				"than requested), clock (it begins in the future: Vault's clock is ahead).",
		}, []string{"trust_domain", "alarm"}),
	}
	return m, vault.Register(r, m.up, m.looked, m.alarm)
}

func (m *pkiMetrics) task(td spiffeid.TrustDomain, task string, err error) {
	m.up.WithLabelValues(td.Name(), task).Set(flag(err == nil))
}

func (m *pkiMetrics) setAlarms(td spiffeid.TrustDomain, r Warnings) {
	m.alarm.WithLabelValues(td.Name(), "short").Set(flag(r.Short > 0))
	m.alarm.WithLabelValues(td.Name(), "clock").Set(flag(r.Ahead > 0))
}

func flag(set bool) float64 {
	if set {
		return 1
	}
	return 0
}
