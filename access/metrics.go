package access

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// metrics counts calls. Its labels are bounded: methods are those of Rules, and codes and reasons are few.
type metrics struct {
	calls   *prometheus.CounterVec
	denials *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_access_calls_total",
			Help: "Calls of the gRPC API, by method and gRPC code.",
		}, []string{"method", "code"}),
		denials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_access_denials_total",
			Help: "Refused calls of the gRPC API, by method and reason.",
		}, []string{"method", "reason"}),
	}
	for _, reason := range reasons {
		m.denials.WithLabelValues(otherMethod, string(reason))
	}
	return m, registerAll(r, m.calls, m.denials)
}

func registerAll(r prometheus.Registerer, all ...prometheus.Collector) error {
	if r == nil {
		return nil
	}
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register the metrics of access: %w", err)
		}
	}
	return nil
}

// otherMethod is the label of all methods that have no rule.
const otherMethod = "other"

func methodLabel(method string) string {
	if _, ok := rules[method]; !ok {
		return otherMethod
	}
	return shortMethod(method)
}

func (m *metrics) called(method string, code codes.Code) {
	m.calls.WithLabelValues(methodLabel(method), code.String()).Inc()
}

func (m *metrics) denied(method string, reason Reason) {
	m.denials.WithLabelValues(methodLabel(method), string(reason)).Inc()
}
