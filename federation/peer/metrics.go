package peer

import (
	"github.com/prometheus/client_golang/prometheus"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// metrics are those of streams. Their labels have values of this side only, never of the peer's.
type metrics struct {
	streams      *prometheus.GaugeVec
	streamsEnded *prometheus.CounterVec
	messages     *prometheus.CounterVec
}

// newMetrics registers the metrics, unless to is nil.
func newMetrics(to prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "entente_federation_streams",
			Help: "Open streams to peers at this member, by which side opened them.",
		}, []string{"direction"}),
		streamsEnded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_federation_streams_ended_total",
			Help: "Streams to peers that ended, or could not be opened, by reason.",
		}, []string{"reason"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_federation_stream_messages_total",
			Help: "Messages on streams to peers, by direction and kind.",
		}, []string{"direction", "kind"}),
	}
	if to == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.streams, m.streamsEnded, m.messages} {
		if err := to.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// countMessage counts a message by its kind.
func (m *metrics) countMessage(direction string, message *ententev1.PeerMessage) {
	m.messages.WithLabelValues(direction, kindOf(message)).Inc()
}

func kindOf(m *ententev1.PeerMessage) string {
	switch m.GetContent().(type) {
	case *ententev1.PeerMessage_Hello:
		return "hello"
	case *ententev1.PeerMessage_Subscription:
		return "subscription"
	case *ententev1.PeerMessage_Bundle:
		return "bundle"
	case *ententev1.PeerMessage_Statements:
		return "statements"
	case *ententev1.PeerMessage_MapSubscription:
		return "map_subscription"
	case *ententev1.PeerMessage_MapChanges:
		return "map_changes"
	case *ententev1.PeerMessage_MapAcknowledgement:
		return "map_acknowledgement"
	case *ententev1.PeerMessage_Acknowledgement:
		return "acknowledgement"
	case *ententev1.PeerMessage_Heartbeat:
		return "heartbeat"
	case *ententev1.PeerMessage_Termination:
		return "termination"
	case *ententev1.PeerMessage_Services:
		return "services"
	case *ententev1.PeerMessage_ServiceSets:
		return "service_sets"
	}
	return "unknown"
}
