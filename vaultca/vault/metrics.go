package vault

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of calls and of the login.
type metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	expiry   prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_vaultca_calls_total",
			Help: "Attempts of calls to Vault by operation (login, renew, sign, revoke, read_issuer, check, and " +
				"transit_create, _read, _sign, _delete) and result: ok, or the reason of the failure.",
		}, []string{"operation", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "entente_vaultca_call_seconds", Help: "Duration of one attempt of a call to Vault.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"operation"}),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_vaultca_login_expiry_timestamp_seconds", Help: "When the login to Vault ends; 0 while it " +
				"never does or there is none.",
		}),
	}
	return m, Register(r, m.calls, m.duration, m.expiry)
}

// Register registers metrics unless r is nil.
func Register(r prometheus.Registerer, all ...prometheus.Collector) error {
	if r == nil {
		return nil
	}
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) call(operation string, err error, took time.Duration) {
	m.calls.WithLabelValues(operation, Reason(err)).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

func (m *metrics) session(s *Session) {
	if s.ttl == 0 {
		m.expiry.Set(0)
		return
	}
	m.expiry.Set(float64(s.granted.Add(s.life).Unix()))
}
