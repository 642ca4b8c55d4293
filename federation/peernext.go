package federation

import (
	"maps"
	"slices"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
)

// peerWorld is what a session has to know of its cluster. It is never changed.
type peerWorld struct {
	// hosted are the bundles that the peer may have, plan what the relationships say of the peer.
	hosted map[string]hostedBundle
	plan   peerPlan
	// lacks says from which sequence on the statements on a foreign bundle are missing here.
	lacks func(td string) (from uint64, missing bool)
	// words are the versions of what is stored by a hub's word.
	words func(hub string) map[string]relationship.Version
}

// next says what is to be sent now, in order. It counts as sent.
func (s *session) next(w peerWorld, now time.Time) (out []*ententev1.PeerMessage) {
	if !s.introduced {
		s.introduced = true
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Hello{Hello: &ententev1.PeerHello{
			Version: peerProtocol, HomeTrustDomain: s.ownHome, Member: s.own,
		}}})
	}
	out = append(out, s.nextInterest(w)...)
	out = append(out, s.nextMapInterests(w)...)
	for _, td := range slices.Sorted(maps.Keys(s.replies)) {
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Acknowledgement{Acknowledgement: s.replies[td]}})
	}
	clear(s.replies)
	for _, m := range s.mapTaken {
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapTaken{MapTaken: m}})
	}
	s.mapTaken = nil
	for _, td := range slices.Sorted(maps.Keys(s.knows)) {
		hosted, ok := w.hosted[td]
		if !ok {
			continue
		}
		s.weigh(td, w, now)
		if hosted.version == s.sent[td] || !hosted.version.Replaces(s.knows[td]) {
			continue
		}
		s.sent[td] = hosted.version
		if _, waits := s.sentAt[td]; !waits {
			s.sentAt[td] = now
		}
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Bundle{Bundle: &ententev1.PeerBundle{TrustDomain: td, Document: hosted.document}}})
	}
	out = append(out, s.nextStatements(w)...)
	if !now.Before(s.beat) {
		s.beat = now.Add(w.beatEvery())
		out = append(out, s.heartbeat(w))
	}
	return out
}

// nextInterest tells what this cluster wants, when that has changed, and what it has of it, when that has.
func (s *session) nextInterest(w peerWorld) (out []*ententev1.PeerMessage) {
	names := carriedDomains(w.plan)
	same := s.told != nil && len(names) == len(s.told)
	for _, td := range names {
		if _, told := s.told[td]; !told {
			same = false
		}
	}
	if !same {
		interest := &ententev1.PeerInterest{}
		s.told = make(map[string]relationship.Version, len(names))
		for _, td := range names {
			s.told[td] = w.plan.wanted[td].Version()
			wanted := s.told[td].Message(td)
			if w.lacks != nil {
				if from, missing := w.lacks(td); missing {
					wanted.StatementsFrom = &from
				}
			}
			interest.Wanted = append(interest.Wanted, wanted)
		}
		return []*ententev1.PeerMessage{{Content: &ententev1.PeerMessage_Interest{Interest: interest}}}
	}
	for _, td := range names {
		if has := w.plan.wanted[td].Version(); has != s.told[td] && s.replies[td] == nil {
			s.told[td] = has
			s.replies[td] = &ententev1.PeerAcknowledgement{Version: has.Message(td)}
		}
	}
	return nil
}

// nextStatements brings the statements that the peer lacks on the versions that it has, or was sent.
func (s *session) nextStatements(w peerWorld) (out []*ententev1.PeerMessage) {
	for _, td := range slices.Sorted(maps.Keys(s.knows)) {
		hosted, ok := w.hosted[td]
		if !ok || hosted.version != s.sent[td] && hosted.version != s.knows[td] {
			continue
		}
		from, told := s.statementsFrom[td]
		if !told {
			from = hosted.version.Sequence // it had no bundle; what was before the first one tells it nothing
		}
		for {
			document, next := hosted.statements.From(from)
			s.statementsFrom[td], from = next, next
			if document == nil {
				break
			}
			out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Statements{Statements: &ententev1.PeerStatements{TrustDomain: td, Document: document}}})
		}
	}
	return out
}

func (s *session) heartbeat(w peerWorld) *ententev1.PeerMessage {
	beat := &ententev1.PeerHeartbeat{}
	for _, td := range slices.Sorted(maps.Keys(s.knows)) {
		if hosted, ok := w.hosted[td]; ok {
			beat.Current = append(beat.Current, hosted.version.Message(td))
		}
	}
	return &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Heartbeat{Heartbeat: beat}}
}

// beatEvery is how often the peer is told what is current: often enough that it never takes the bundles for stale.
func (w peerWorld) beatEvery() time.Duration {
	every := longestBeat
	for _, h := range w.hosted {
		if h.hint > 0 {
			every = min(every, max(h.hint/relationship.StaleAfter, shortestBeat))
		}
	}
	return every
}

// carriedDomains returns the domains that one stream carries for a plan, in order.
func carriedDomains(p peerPlan) []string {
	names := slices.Sorted(maps.Keys(p.wanted))
	return names[:min(len(names), maxPeerDomains)]
}
