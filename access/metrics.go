package access

import (
	"errors"
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
	if r == nil {
		return m, nil
	}
	if err := errors.Join(r.Register(m.calls), r.Register(m.denials)); err != nil {
		return nil, fmt.Errorf("register the metrics of access: %w", err)
	}
	return m, nil
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
