package federation

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
)

// The bounds of one stream. They leave room for a hundred times what a peer in good order needs.
const (
	peerProtocol = 1
	// maxPeerDomains is how many domains one stream carries each way. What goes beyond is polled.
	maxPeerDomains = 256
	// maxPeerMessage is a bundle document with room for the rest of its message.
	maxPeerMessage = 1<<20 + 64<<10
	// peerSilence is how long a peer may say nothing, and a message to it wait to be taken.
	peerSilence = 30 * time.Second
	// helloWithin is how long the first message may take.
	helloWithin = 10 * time.Second
	// acknowledgeWithin is how long a peer may take to store a bundle, or to refuse it; an election there takes a second.
	acknowledgeWithin = time.Minute
	// A heartbeat comes three times a refresh interval, within these bounds.
	longestBeat, shortestBeat = 10 * time.Second, 300 * time.Millisecond
	// maxRefusals is how many bundles and statements that were refused a stream outlives.
	maxRefusals = 32
)

// acknowledged is what a peer said of a hosted domain's bundle.
type acknowledged struct {
	sequence uint64
	refusal  string
	at       time.Time
}

// session is the state of one stream, with the rules of its protocol: [session.take] says what a message means, and
// [session.next] what is to be sent. It knows nothing of the network. Its user holds a lock around it.
type session struct {
	home, remote string // the peer's home trust domain, and its member at the other end
	ownHome, own string
	outgoing     bool
	began        time.Time

	introduced, greeted bool
	heard               time.Time
	beat                time.Time // when the next heartbeat is due

	// knows is what the peer has of the hosted bundles that it wants, sent what was sent to it last and when, acked what it said.
	knows  map[string]relationship.Version
	sent   map[string]relationship.Version
	sentAt map[string]time.Time
	acked  map[string]acknowledged
	// statementsFrom is from which sequence on the peer lacks statements on a hosted bundle, those that were sent to it left out.
	statementsFrom map[string]uint64
	// told is what the peer was told that this cluster has of what it wants, confirmed when the peer last said that it is so.
	told      map[string]relationship.Version
	confirmed map[string]time.Time
	// replies are acknowledgements to be sent, one a domain.
	replies map[string]*ententev1.PeerAcknowledgement
	// mapAsked is how a hub's map was asked for, by its relationship; mapNumber is that of the last interest, mapTaken what is to be said of
	// changes that were taken in.
	mapAsked  map[string]mapAsked
	mapNumber uint64
	mapTaken  []*ententev1.PeerMapTaken
	refusals  int
}

func newSession(ownHome, own, home, remote string, outgoing bool, now time.Time) *session {
	return &session{
		ownHome: ownHome, own: own, home: home, remote: remote, outgoing: outgoing, began: now, heard: now, beat: now,
		knows: map[string]relationship.Version{}, sent: map[string]relationship.Version{}, sentAt: map[string]time.Time{}, acked: map[string]acknowledged{},
		mapAsked: map[string]mapAsked{}, statementsFrom: map[string]uint64{}, confirmed: map[string]time.Time{}, replies: map[string]*ententev1.PeerAcknowledgement{},
	}
}

// taken is what a message asks for beyond the session itself.
type taken struct {
	// bundle is one to be stored, if the cluster wants it.
	bundle *ententev1.PeerBundle
	// statements are such on a bundle, to be checked if the cluster wants it.
	statements *ententev1.PeerStatements
	// mapInterest and mapTaken are of this cluster's map, mapChanges of the peer's.
	mapInterest *ententev1.PeerMapInterest
	mapChanges  *ententev1.PeerMapChanges
	mapTaken    *ententev1.PeerMapTaken
	// confirmed are the domains of which the peer has what is stored here.
	confirmed []string
}

// take takes in a message. An error ends the stream.
func (s *session) take(m *ententev1.PeerMessage, w peerWorld, now time.Time) (taken, error) {
	s.heard = now
	hello, isHello := m.GetContent().(*ententev1.PeerMessage_Hello)
	switch {
	case isHello && s.greeted:
		return taken{}, violation("unexpected_hello", "the peer said hello a second time")
	case isHello:
		s.greeted = true
		return taken{}, s.checkHello(hello.Hello)
	case !s.greeted:
		return taken{}, violation("no_hello", "the peer's first message is no hello")
	}
	switch c := m.GetContent().(type) {
	case *ententev1.PeerMessage_Interest:
		return taken{}, s.takeInterest(c.Interest, w, now)
	case *ententev1.PeerMessage_Bundle:
		if _, err := relationship.ParseTrustDomain(c.Bundle.GetTrustDomain()); err != nil {
			return taken{}, violation("malformed", "the peer brings a bundle of %s, which is no trust domain", relationship.Quote(c.Bundle.GetTrustDomain()))
		}
		return taken{bundle: c.Bundle}, nil
	case *ententev1.PeerMessage_Statements:
		if _, err := relationship.ParseTrustDomain(c.Statements.GetTrustDomain()); err != nil {
			return taken{}, violation("malformed", "the peer brings statements on %s, which is no trust domain", relationship.Quote(c.Statements.GetTrustDomain()))
		}
		return taken{statements: c.Statements}, nil
	case *ententev1.PeerMessage_MapInterest:
		return taken{mapInterest: c.MapInterest}, nil
	case *ententev1.PeerMessage_MapChanges:
		return s.takeMapChanges(c.MapChanges, w)
	case *ententev1.PeerMessage_MapTaken:
		return taken{mapTaken: c.MapTaken}, nil
	case *ententev1.PeerMessage_Acknowledgement:
		return taken{}, s.takeAcknowledgement(c.Acknowledgement, w, now)
	case *ententev1.PeerMessage_Heartbeat:
		return s.takeHeartbeat(c.Heartbeat, w, now)
	case *ententev1.PeerMessage_Goodbye:
		reason := c.Goodbye.GetReason()
		if !slices.Contains(goodbyes, reason) {
			reason = "goodbye"
		}
		return taken{}, &streamError{reason, relationship.Clip(fmt.Sprintf("the peer ended the stream: %s", c.Goodbye.GetDetail())), true}
	}
	return taken{}, nil // of a later version
}

func (s *session) checkHello(h *ententev1.PeerHello) error {
	switch {
	case h.GetVersion() < peerProtocol:
		return violation("version", "the peer speaks version %d of the protocol, and %d is the first", h.GetVersion(), peerProtocol)
	case h.GetHomeTrustDomain() != s.home || h.GetMember() != s.remote:
		return violation("identity_mismatch", "the peer says that it is member %s of %s, and its X509-SVID says member %s of %s",
			relationship.Quote(h.GetMember()), relationship.Quote(h.GetHomeTrustDomain()), s.remote, s.home)
	}
	return nil
}

func (s *session) takeInterest(m *ententev1.PeerInterest, w peerWorld, now time.Time) error {
	if n := len(m.GetWanted()); n > maxPeerDomains {
		return violation("too_many_domains", "the peer wants %d bundles; %d are the most on one stream", n, maxPeerDomains)
	}
	wanted, from := make(map[string]relationship.Version, len(m.GetWanted())), make(map[string]uint64, len(m.GetWanted()))
	for _, named := range m.GetWanted() {
		td, v, err := parseVersion(named)
		if err != nil {
			return err
		}
		wanted[td] = v
		switch {
		case named.StatementsFrom != nil:
			from[td] = named.GetStatementsFrom()
		case v.Ordered && v.Sequence < math.MaxUint64:
			from[td] = v.Sequence + 1
		}
		if sent, ok := s.statementsFrom[td]; ok {
			from[td] = sent // nothing is brought twice, however often it is asked for
		}
	}
	s.knows, s.statementsFrom = wanted, from
	s.beat = now  // so that it learns at once which of them are current
	clear(s.sent) // it says what it has now
	maps.DeleteFunc(s.acked, func(td string, _ acknowledged) bool { _, ok := wanted[td]; return !ok })
	maps.DeleteFunc(s.sentAt, func(td string, _ time.Time) bool { _, ok := wanted[td]; return !ok })
	for td := range wanted {
		s.weigh(td, w, now)
	}
	return nil
}

// weigh looks at whether what a peer says that it has is a version that this cluster knows to be its own.
func (s *session) weigh(td string, w peerWorld, now time.Time) {
	hosted, ok := w.hosted[td]
	if !ok {
		return
	}
	a, seen := s.acked[td]
	if !seen {
		a.at = now
	}
	if known := s.knows[td]; !known.None() && (known == hosted.version || known == s.sent[td]) && (known.Sequence > a.sequence || a.refusal != "" || s.waits(td)) {
		a = acknowledged{max(known.Sequence, a.sequence), "", now}
		if known == s.sent[td] || known == hosted.version {
			delete(s.sentAt, td)
		}
	}
	s.acked[td] = a
}

func (s *session) waits(td string) bool { _, ok := s.sentAt[td]; return ok }

func (s *session) takeAcknowledgement(m *ententev1.PeerAcknowledgement, w peerWorld, now time.Time) error {
	td, v, err := parseVersion(m.GetVersion())
	if err != nil {
		return err
	}
	if _, wants := s.knows[td]; !wants {
		return nil // it was on its way when the peer said that it wants it no more
	}
	if m.GetRefusal() != "" {
		if a := s.acked[td]; s.waits(td) {
			s.acked[td] = acknowledged{a.sequence, refusalName(m.GetRefusal()), now}
			delete(s.sentAt, td)
		}
		return nil
	}
	s.knows[td] = v
	s.weigh(td, w, now)
	return nil
}

// refusalName is a peer's reason as it is shown: a short word, whatever the peer wrote.
func refusalName(reason string) string {
	if len(reason) > 40 {
		return "other"
	}
	for _, c := range reason {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return "other"
		}
	}
	return reason
}

func (s *session) takeHeartbeat(m *ententev1.PeerHeartbeat, w peerWorld, now time.Time) (taken, error) {
	if n := len(m.GetCurrent()); n > maxPeerDomains {
		return taken{}, violation("too_many_domains", "the peer's heartbeat names %d bundles; %d are the most on one stream", n, maxPeerDomains)
	}
	var t taken
	s.forgetOldMaps(now)
	for _, named := range m.GetCurrent() {
		td, v, err := parseVersion(named)
		if err != nil {
			return taken{}, err
		}
		if held, ok := w.plan.wanted[td]; ok && !v.None() && v == held.Version() {
			s.confirmed[td] = now
			t.confirmed = append(t.confirmed, td)
		}
	}
	return t, nil
}

// reply answers a bundle that the peer brought: stored, or refused for a reason.
func (s *session) reply(td string, v relationship.Version, refusal string) {
	s.replies[td] = &ententev1.PeerAcknowledgement{Version: v.Message(td), Refusal: refusal}
	if refusal == "" {
		s.confirmed[td] = s.heard
		if s.told != nil {
			s.told[td] = v
		}
	}
}

// overdue says why the stream has to end, by the clock alone.
func (s *session) overdue(now time.Time) error {
	silent := now.Sub(s.heard)
	switch {
	case !s.greeted && now.Sub(s.began) > helloWithin:
		return violation("silent", "the peer did not say hello within %s", helloWithin)
	case silent > peerSilence:
		return violation("silent", "the peer said nothing for %s", silent.Round(time.Second))
	}
	for td, at := range s.sentAt {
		if now.Sub(at) > acknowledgeWithin {
			return violation("unacknowledged", "the peer did not acknowledge the bundle of %s within %s", td, acknowledgeWithin)
		}
	}
	return nil
}
