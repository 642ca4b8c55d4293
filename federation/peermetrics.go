package federation

import (
	"github.com/prometheus/client_golang/prometheus"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// newPeerMetrics makes those of streams. Their labels are this side's words, never the peer's.
func newPeerMetrics(ms *metrics) {
	ms.streams = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "entente_federation_streams", Help: "Open streams to peers at this member, by which side opened them.",
	}, []string{"direction"})
	ms.streamsEnded = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_federation_streams_ended_total", Help: "Streams to peers that ended, or did not come about, by the reason.",
	}, []string{"reason"})
	ms.messages = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_federation_stream_messages_total", Help: "Messages on streams to peers, by direction and kind.",
	}, []string{"direction", "kind"})
	ms.received = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_federation_stream_bundles_total", Help: "Bundles that peers brought, by what came of them.",
	}, []string{"result"})
}

func (ms *metrics) peerMessage(direction string, m *ententev1.PeerMessage) {
	kind := "unknown"
	switch m.GetContent().(type) {
	case *ententev1.PeerMessage_Hello:
		kind = "hello"
	case *ententev1.PeerMessage_Interest:
		kind = "interest"
	case *ententev1.PeerMessage_Bundle:
		kind = "bundle"
	case *ententev1.PeerMessage_Statements:
		kind = "statements"
	case *ententev1.PeerMessage_MapInterest:
		kind = "map_interest"
	case *ententev1.PeerMessage_MapChanges:
		kind = "map_changes"
	case *ententev1.PeerMessage_MapTaken:
		kind = "map_taken"
	case *ententev1.PeerMessage_Acknowledgement:
		kind = "acknowledgement"
	case *ententev1.PeerMessage_Heartbeat:
		kind = "heartbeat"
	case *ententev1.PeerMessage_Goodbye:
		kind = "goodbye"
	case *ententev1.PeerMessage_Services:
		kind = "services"
	case *ententev1.PeerMessage_ServiceSets:
		kind = "service_sets"
	}
	ms.messages.WithLabelValues(direction, kind).Inc()
}
