package federation

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// streamFraming is what gRPC (5), an HTTP/2 DATA frame (9) and a TLS 1.3 record (22) add to a message on a stream.
const streamFraming = 36

// The kinds of traffic. Polls are distinguished by their result, and counted as one message each way.
const (
	kindBundle    = "bundle"
	kindAnswer    = "acknowledgement"
	kindHeartbeat = "heartbeat"
	kindOpening   = "opening" // hello, interest, termination
	kindMap       = "map"     // changes of a hub's attestations
	kindOther     = "other"   // statements, services
	kindUnchanged = "poll unchanged"
	kindChanged   = "poll changed"
	kindBroken    = "poll broken off"
)

// tally is an amount of traffic.
type tally struct{ messages, bytes int }

func (t tally) plus(o tally) tally { return tally{t.messages + o.messages, t.bytes + o.bytes} }
func (t tally) times(f float64) tally {
	return tally{int(f * float64(t.messages)), int(f * float64(t.bytes))}
}
func (t tally) minus(o tally) tally { return tally{t.messages - o.messages, t.bytes - o.bytes} }

// traffic counts what one cluster sends and receives, by kind.
type traffic struct {
	mu     sync.Mutex
	byKind map[string]tally
}

func (t *traffic) count(kind string, messages, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKind == nil {
		t.byKind = map[string]tally{}
	}
	t.byKind[kind] = t.byKind[kind].plus(tally{messages, bytes})
}

// counted returns the traffic so far.
func (t *traffic) counted() trafficByKind {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.byKind)
}

// trafficByKind is traffic by kind, at one moment or between two.
type trafficByKind map[string]tally

func (l trafficByKind) since(before trafficByKind) trafficByKind {
	out := trafficByKind{}
	for kind, t := range l {
		out[kind] = t.minus(before[kind])
	}
	return out
}

// of returns the sum of some kinds.
func (l trafficByKind) of(kinds ...string) (sum tally) {
	for kind, t := range l {
		if slices.Contains(kinds, kind) {
			sum = sum.plus(t)
		}
	}
	return sum
}

// news returns the cost of a distrust: bundles and acknowledgements.
func (l trafficByKind) news() tally { return l.of(kindBundle, kindAnswer, kindMap, kindChanged) }

// all returns the sum of all kinds.
func (l trafficByKind) all() (sum tally) {
	for _, t := range l {
		sum = sum.plus(t)
	}
	return sum
}

// kindOf returns the kind of a message on a stream, and its bytes on the wire.
func kindOf(m *ententev1.PeerMessage) (kind string, bytes int) {
	bytes = proto.Size(m) + streamFraming
	switch m.GetContent().(type) {
	case *ententev1.PeerMessage_Bundle:
		return kindBundle, bytes
	case *ententev1.PeerMessage_Acknowledgement, *ententev1.PeerMessage_MapAcknowledgement:
		return kindAnswer, bytes
	case *ententev1.PeerMessage_Heartbeat:
		return kindHeartbeat, bytes
	case *ententev1.PeerMessage_MapSubscription:
		return kindOpening, bytes
	case *ententev1.PeerMessage_MapChanges:
		if c := m.GetMapChanges(); len(c.GetBundles()) == 0 && len(c.GetWithdrawn()) == 0 {
			return kindHeartbeat, bytes
		}
		return kindMap, bytes
	case *ententev1.PeerMessage_Hello, *ententev1.PeerMessage_Subscription, *ententev1.PeerMessage_Termination:
		return kindOpening, bytes
	}
	return kindOther, bytes
}
