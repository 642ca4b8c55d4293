package membership

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	members, alive, diverged, clockOffset, clockDistance prometheus.Gauge
	heartbeats, joins                                    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "entente_membership_" + name, Help: help})
	}
	m := &metrics{
		members: gauge("members", "Members of the cluster."),
		alive:   gauge("alive_members", "Members that the leader marks alive; 0 on members that do not lead."),
		diverged: gauge("diverged_members",
			"Members whose replicated state is not the same as that of the others; 0 on members that do not lead."),
		clockOffset: gauge("clock_offset_seconds", "How far this member's clock is ahead of the leader's."),
		clockDistance: gauge("clock_distance_seconds",
			"How far this member's clock is from a majority's; signing stops beyond 300."),
		heartbeats: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_membership_heartbeats_total", Help: "Heartbeats sent to the leader, by result.",
		}, []string{"result"}),
		joins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_membership_joins_total", Help: "Requests to join that this member answered, by gRPC code.",
		}, []string{"code"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.members, m.alive, m.diverged, m.clockOffset, m.clockDistance, m.heartbeats, m.joins,
	} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register the membership's metrics: %w", err)
		}
	}
	return m, nil
}
