package peer

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
)

// Known holds the streams of all members by peer, in the form of the API.
type Known map[string][]*ententev1.PeerStream

// Known queries the leader for the streams with one peer, or with all if home is empty. Without a leader, it returns
// those of this member.
func (p *Streams) Known(ctx context.Context, home string) Known {
	if home == "" && len(p.plans.allNamed()) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	observed := map[string]map[string]observation{}
	add := func(peer, member string, n observation) {
		if observed[peer] == nil {
			observed[peer] = map[string]observation{}
		}
		observed[peer][member] = n
	}
	now := p.config.Now()
	query := &statev1.PeerQuery{HomeTrustDomain: home}
	if _, err := p.config.queryLeader(ctx, query, func(o *statev1.PeerObservation) {
		add(o.GetHomeTrustDomain(), o.GetMember(), observationOf(o, now))
	}); err != nil {
		p.config.Logger.Debug("the streams of the other members are not known", "error", err)
	}
	for peer, n := range p.reports.own() {
		if home == "" || peer == home {
			add(peer, p.config.Member(), n)
		}
	}
	hosted := p.hosted.get()
	out := Known{}
	for peer, members := range observed {
		maps.DeleteFunc(members, func(_ string, n observation) bool { return replaced(n, members) })
		for _, member := range slices.Sorted(maps.Keys(members)) {
			out[peer] = append(out[peer], members[member].shown(member, hosted))
		}
	}
	return out
}

// replaced reports whether a stream has ended because another one took its place, which is connected. It is no stream
// that is down.
func replaced(n observation, all map[string]observation) bool {
	if n.connected || !slices.Contains(session.ReplacedReasons, n.result) {
		return false
	}
	for _, other := range all {
		if other.connected {
			return true
		}
	}
	return false
}

// Add sets the streams of a relationship's peer.
func (k Known) Add(r *ententev1.Relationship) {
	if r.GetPeer() != nil {
		r.Streams = k[r.GetPeer().GetHomeTrustDomain()]
	}
}

func (n observation) shown(member string, hosted map[string]session.Hosted) *ententev1.PeerStream {
	out := &ententev1.PeerStream{
		Member: member, RemoteMember: n.remote, Connected: n.connected, LastResult: n.result, LastError: n.err,
		Confirmed: n.confirmed,
	}
	if !n.changed.IsZero() {
		out.Since = timestamppb.New(n.changed)
	}
	if n.known || n.outgoing {
		out.Direction = ententev1.PeerDirection_PEER_DIRECTION_INCOMING
		if n.outgoing {
			out.Direction = ententev1.PeerDirection_PEER_DIRECTION_OUTGOING
		}
	}
	for _, td := range slices.Sorted(maps.Keys(n.acknowledged)) {
		a := n.acknowledged[td]
		out.Acknowledgements = append(out.Acknowledgements, &ententev1.PeerStreamAcknowledgement{
			TrustDomain: td, Sequence: a.Sequence, Refusal: a.Refusal, Time: timestamppb.New(a.Time),
			Pending: a.Sequence < hosted[td].Version.Sequence,
		})
	}
	return out
}
