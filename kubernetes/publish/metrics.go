package publish

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	bundlesGauge = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "entente_kubernetes_bundles", Help: "Bundles that Entente shows the controller.",
	})
	connectedGauge = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "entente_kubernetes_connected", Help: "Whether changes of bundles are received from Entente.",
	})
	publishedGauge = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "entente_kubernetes_publication_published",
		Help: "Whether every object of a publication holds the present bundles.",
	}, []string{"kind", "namespace", "name"})
	writesCounter = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_kubernetes_writes_total",
		Help: "Objects applied and deleted, by kind and result.",
	}, []string{"operation", "kind", "result"})
)

func init() { //nolint:gochecknoinits // as the metrics of controller-runtime are registered
	metrics.Registry.MustRegister(bundlesGauge, connectedGauge, publishedGauge, writesCounter)
}

// count counts a write.
func count(operation, kind string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	writesCounter.WithLabelValues(operation, kind, result).Inc()
}
