package federation

import (
	"github.com/prometheus/client_golang/prometheus"
)

// bundleCollector reads the metrics of foreign bundles from the mirror when they are scraped, so that a domain that is
// not foreign any more leaves none behind.
type bundleCollector struct{ manager *Manager }

var (
	sequenceDesc = prometheus.NewDesc(
		"entente_federation_bundle_sequence",
		"Sequence of a foreign bundle, if it has one.",
		[]string{"trust_domain"},
		nil,
	)
	ageDesc = prometheus.NewDesc(
		"entente_federation_bundle_age_seconds",
		"Time since the keys of a foreign bundle last changed.",
		[]string{"trust_domain"},
		nil,
	)
	confirmedDesc = prometheus.NewDesc(
		"entente_federation_bundle_unconfirmed_seconds",
		"Time since this member last confirmed the bundle of a foreign trust domain at its endpoint; for those that "+
			"it fetches.",
		[]string{"trust_domain"},
		nil,
	)
	freshnessDesc = prometheus.NewDesc(
		"entente_federation_bundle_freshness",
		"Freshness of a foreign bundle: 0 none yet, 1 fresh, 2 stale, 3 expired.",
		[]string{"trust_domain"},
		nil,
	)
	ignoredDesc = prometheus.NewDesc(
		"entente_federation_bundle_ignored_keys",
		"Keys of a foreign bundle that are left out: no verifier could use them.",
		[]string{"trust_domain"},
		nil,
	)
	suspendedDesc = prometheus.NewDesc("entente_federation_relationship_suspended",
		"1 if the relationship is suspended, else 0.", []string{"trust_domain"}, nil)
	alarmDesc = prometheus.NewDesc(
		"entente_federation_alarm",
		"1 for each alarm on a foreign domain: broken_chain, new_chain, split_view.",
		[]string{"trust_domain", "alarm"},
		nil,
	)
)

// Describe implements prometheus.Collector.
func (c *bundleCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		sequenceDesc, ageDesc, confirmedDesc, freshnessDesc, ignoredDesc, suspendedDesc, alarmDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *bundleCollector) Collect(out chan<- prometheus.Metric) {
	now := c.manager.now()
	gauge := func(d *prometheus.Desc, v float64, name string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name)
	}
	for _, name := range c.manager.catalog.Names() {
		e, ok := c.manager.catalog.Get(name)
		if !ok {
			continue
		}
		suspended := 0.0
		if e.Rel.Suspended {
			suspended = 1
		}
		gauge(suspendedDesc, suspended, name)
		for _, alarm := range e.Rel.Alarms {
			out <- prometheus.MustNewConstMetric(alarmDesc, prometheus.GaugeValue, 1, name, alarm)
		}
		gauge(freshnessDesc, float64(e.Rel.Validity.State.Freshness()), name)
		if e.Holding.Revision == 0 {
			continue
		}
		gauge(ageDesc, max(0, now.Sub(e.Holding.ChangeTime).Seconds()), name)
		gauge(ignoredDesc, float64(e.Holding.IgnoredKeys), name)
		if e.Holding.Ordered {
			gauge(sequenceDesc, float64(e.Holding.Sequence), name)
		}
		if seen, ok := c.manager.observations.Own.Get(name); ok && !seen.LastSuccess.IsZero() {
			gauge(confirmedDesc, max(0, now.Sub(seen.LastSuccess).Seconds()), name)
		}
	}
}
