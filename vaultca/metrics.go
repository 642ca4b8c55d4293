package vaultca

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

type metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	expiry   prometheus.Gauge
	up       *prometheus.GaugeVec
	looked   *prometheus.GaugeVec
	alarm    *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_vaultca_calls_total",
			Help: "Attempts of calls to Vault by operation (login, renew, sign, revoke, read_issuer, check, and transit_create, _read, _sign, _delete) and result: ok, or the reason of the failure.",
		}, []string{"operation", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "entente_vaultca_call_seconds", Help: "Duration of one attempt of a call to Vault.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"operation"}),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_vaultca_login_expiry_timestamp_seconds", Help: "When the login to Vault ends; 0 while it never does or there is none.",
		}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_vaultca_up", Help: "1 while the last attempt of that task (sign, anchors) worked, 0 while it did not.",
		}, []string{"trust_domain", "task"}),
		looked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_vaultca_anchors_seen_timestamp_seconds", Help: "When a domain's anchors were last read from Vault or their file.",
		}, []string{"trust_domain"}),
		alarm: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_vaultca_alarm",
			Help: "1 while the newest signing certificate needs a person's look: short (Vault gave less lifetime than asked), clock (it begins in the future: Vault's clock is ahead).",
		}, []string{"trust_domain", "alarm"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.calls, m.duration, m.expiry, m.up, m.looked, m.alarm} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) call(operation string, err error, took time.Duration) {
	m.calls.WithLabelValues(operation, Reason(err)).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

func (m *metrics) session(s *session) {
	if s.ttl == 0 {
		m.expiry.Set(0)
		return
	}
	m.expiry.Set(float64(s.granted.Add(s.life).Unix()))
}

func (m *metrics) task(td spiffeid.TrustDomain, task string, err error) {
	m.up.WithLabelValues(td.Name(), task).Set(flag(err == nil))
}

func (m *metrics) remark(td spiffeid.TrustDomain, r Remark) {
	m.alarm.WithLabelValues(td.Name(), "short").Set(flag(r.Short > 0))
	m.alarm.WithLabelValues(td.Name(), "clock").Set(flag(r.Ahead > 0))
}

func flag(set bool) float64 {
	if set {
		return 1
	}
	return 0
}
