package endpoint

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

func registerMetrics(registerer prometheus.Registerer, collectors ...prometheus.Collector) error {
	if registerer == nil {
		return nil
	}
	for _, c := range collectors {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("register metrics of the bundle endpoint: %w", err)
		}
	}
	return nil
}
