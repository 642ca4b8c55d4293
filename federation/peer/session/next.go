package session

import (
	"maps"
	"slices"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
)

// World is what a session depends on of its cluster. It is not modified.
type World struct {
	// Hosted holds the bundles that the peer may receive, and Plan what the relationships require of the peer.
	Hosted map[string]Hosted
	Plan   relationship.PeerPlan
	// MissingStatements returns the sequence from which statements on a foreign bundle are missing. If nil, none are.
	MissingStatements func(td string) (from uint64, missing bool)
	// Attested returns the versions of the bundles that are stored because of a hub's attestations.
	Attested func(hub string) map[string]relationship.Version
}

// Next returns the messages to send now, in order, and counts them as sent.
func (s *Session) Next(w World, now time.Time) (out []*ententev1.PeerMessage) {
	if !s.introduced {
		s.introduced = true
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Hello{Hello: &ententev1.PeerHello{
			Version: protocolVersion, HomeTrustDomain: s.OwnHome, Member: s.own,
		}}})
	}
	out = append(out, s.nextInterest(w)...)
	out = append(out, s.nextMapSubscriptions(w)...)
	for _, td := range slices.Sorted(maps.Keys(s.replies)) {
		out = append(
			out,
			&ententev1.PeerMessage{Content: &ententev1.PeerMessage_Acknowledgement{Acknowledgement: s.replies[td]}},
		)
	}
	clear(s.replies)
	for _, m := range s.mapStored {
		out = append(
			out,
			&ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapAcknowledgement{MapAcknowledgement: m}},
		)
	}
	s.mapStored = nil
	for _, td := range slices.Sorted(maps.Keys(s.Wanted)) {
		hosted, ok := w.Hosted[td]
		if !ok {
			continue
		}
		s.confirmOwn(td, w, now)
		if hosted.Version == s.sent[td] || !hosted.Version.Replaces(s.Wanted[td]) {
			continue
		}
		s.sent[td] = hosted.Version
		if _, waits := s.sentAt[td]; !waits {
			s.sentAt[td] = now
		}
		out = append(
			out,
			&ententev1.PeerMessage{
				Content: &ententev1.PeerMessage_Bundle{
					Bundle: &ententev1.PeerBundle{TrustDomain: td, Document: hosted.Document},
				},
			},
		)
	}
	out = append(out, s.nextStatements(w)...)
	if !now.Before(s.NextHeartbeat) {
		s.NextHeartbeat = now.Add(w.HeartbeatInterval())
		out = append(out, s.heartbeat(w))
	}
	return out
}

// nextInterest sends which bundles this cluster wants if that has changed, and otherwise acknowledges versions that it
// has from another source.
func (s *Session) nextInterest(w World) (out []*ententev1.PeerMessage) {
	names := Domains(w.Plan)
	same := s.announced != nil && len(names) == len(s.announced)
	for _, td := range names {
		if _, announced := s.announced[td]; !announced {
			same = false
		}
	}
	if !same {
		interest := &ententev1.PeerSubscription{}
		s.announced = make(map[string]relationship.Version, len(names))
		for _, td := range names {
			s.announced[td] = w.Plan.Wanted[td].Version()
			wanted := s.announced[td].Message(td)
			if w.MissingStatements != nil {
				if from, missing := w.MissingStatements(td); missing {
					wanted.StatementsFrom = &from
				}
			}
			interest.Wanted = append(interest.Wanted, wanted)
		}
		return []*ententev1.PeerMessage{{Content: &ententev1.PeerMessage_Subscription{Subscription: interest}}}
	}
	for _, td := range names {
		if has := w.Plan.Wanted[td].Version(); has != s.announced[td] && s.replies[td] == nil {
			s.announced[td] = has
			s.replies[td] = &ententev1.PeerAcknowledgement{Version: has.Message(td)}
		}
	}
	return nil
}

// nextStatements sends the statements that the peer lacks on the versions that it has or was sent.
func (s *Session) nextStatements(w World) (out []*ententev1.PeerMessage) {
	for _, td := range slices.Sorted(maps.Keys(s.Wanted)) {
		hosted, ok := w.Hosted[td]
		if !ok || hosted.Version != s.sent[td] && hosted.Version != s.Wanted[td] {
			continue
		}
		from, known := s.statementsFrom[td]
		if !known {
			from = hosted.Version.Sequence // it has no bundle yet, and cannot check older statements
		}
		for {
			document, next := hosted.Statements.From(from)
			s.statementsFrom[td], from = next, next
			if document == nil {
				break
			}
			out = append(
				out,
				&ententev1.PeerMessage{
					Content: &ententev1.PeerMessage_Statements{
						Statements: &ententev1.PeerStatements{TrustDomain: td, Document: document},
					},
				},
			)
		}
	}
	return out
}

func (s *Session) heartbeat(w World) *ententev1.PeerMessage {
	beat := &ententev1.PeerHeartbeat{}
	for _, td := range slices.Sorted(maps.Keys(s.Wanted)) {
		if hosted, ok := w.Hosted[td]; ok {
			beat.Current = append(beat.Current, hosted.Version.Message(td))
		}
	}
	return &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Heartbeat{Heartbeat: beat}}
}

// HeartbeatInterval returns the interval of heartbeats, which is short enough that the bundles never become stale at
// the peer.
func (w World) HeartbeatInterval() time.Duration {
	every := LongestHeartbeat
	for _, h := range w.Hosted {
		if h.Hint > 0 {
			every = min(every, max(h.Hint/relationship.StaleAfter, ShortestHeartbeat))
		}
	}
	return every
}

// Domains returns the domains that one stream carries for a plan, in order.
func Domains(p relationship.PeerPlan) []string {
	names := slices.Sorted(maps.Keys(p.Wanted))
	return names[:min(len(names), MaxDomains)]
}
