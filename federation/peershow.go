package federation

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
)

// knownStreams are the streams of all members by peer, as the API has them.
type knownStreams map[string][]*ententev1.PeerStream

// knownStreams asks the leader for the streams with one peer, or with all. Without a leader there is this member's word.
func (m *Manager) knownStreams(ctx context.Context, home string) knownStreams {
	if home == "" && !m.peers.anyNamed() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, liveWithin)
	defer cancel()
	notes := map[string]map[string]peerNote{}
	now := m.now()
	if _, err := m.askPeers(ctx, &statev1.PeerQuery{HomeTrustDomain: home}, func(o *statev1.PeerObservation) {
		if notes[o.GetHomeTrustDomain()] == nil {
			notes[o.GetHomeTrustDomain()] = map[string]peerNote{}
		}
		notes[o.GetHomeTrustDomain()][o.GetMember()] = peerNoteOf(o, now)
	}); err != nil {
		m.log.Debug("the leader did not tell which streams there are", "error", err)
	}
	for peer, own := range m.peers.reports.notes() {
		if home != "" && peer != home {
			continue
		}
		if notes[peer] == nil {
			notes[peer] = map[string]peerNote{}
		}
		notes[peer][m.member] = own
	}
	m.peers.mu.Lock()
	hosted := m.peers.hosted
	m.peers.mu.Unlock()
	out := knownStreams{}
	for peer, members := range notes {
		for _, member := range slices.Sorted(maps.Keys(members)) {
			out[peer] = append(out[peer], members[member].shown(member, hosted))
		}
	}
	return out
}

// add puts the streams of a relationship's peer into it.
func (k knownStreams) add(r *ententev1.Relationship) {
	if r.GetPeer() != nil {
		r.Streams = k[r.GetPeer().GetHomeTrustDomain()]
	}
}

func (p *peers) anyNamed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.named) > 0
}

// notes are what this member knows.
func (r *PeerReports) notes() map[string]peerNote {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.own)
}

func (n peerNote) shown(member string, hosted map[string]session.Hosted) *ententev1.PeerStream {
	out := &ententev1.PeerStream{
		Member: member, RemoteMember: n.remote, Connected: n.connected, Since: timestampOf(n.changed), LastResult: n.result, LastError: n.err,
		Confirmed: n.confirmed,
	}
	if n.known || n.outgoing {
		out.Direction = ententev1.PeerDirection_PEER_DIRECTION_INCOMING
		if n.outgoing {
			out.Direction = ententev1.PeerDirection_PEER_DIRECTION_OUTGOING
		}
	}
	for _, td := range slices.Sorted(maps.Keys(n.acked)) {
		a := n.acked[td]
		out.Acknowledgements = append(out.Acknowledgements, &ententev1.PeerStreamAcknowledgement{
			TrustDomain: td, Sequence: a.Sequence, Refusal: a.Refusal, Time: timestamppb.New(a.Time), Pending: a.Sequence < hosted[td].Version.Sequence,
		})
	}
	return out
}
