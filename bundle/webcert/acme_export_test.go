package webcert

import "github.com/prometheus/client_golang/prometheus"

// WithoutRenewalInfo renews when a third of a certificate's life is left, whatever the ACME server suggests.
func WithoutRenewalInfo(a *ACME) { a.magic.DisableARI = true }

// ACMEOrders is the counter of one result.
func ACMEOrders(a *ACME, result string) prometheus.Counter { return a.orders.WithLabelValues(result) }
