package session

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
)

// The limits of one stream. They are about a hundred times what a working peer needs.
const (
	protocolVersion = 1
	// MaxDomains is how many domains one stream carries in each direction. Further ones are polled.
	MaxDomains = 256
	// MaxMessage is a bundle document with room for the rest of its message.
	MaxMessage = 1<<20 + 64<<10
	// SilenceTimeout is how long a peer may send nothing, and how long a message to it may wait in the network.
	SilenceTimeout = 30 * time.Second
	// HelloTimeout is how long the first message may take.
	HelloTimeout = 10 * time.Second
	// AcknowledgeTimeout is how long a peer may take to store or refuse a bundle. An election there takes about a
	// second.
	AcknowledgeTimeout = time.Minute
	// LongestHeartbeat is the longest time between two heartbeats, which are sent three times per refresh interval.
	LongestHeartbeat = 10 * time.Second
	// ShortestHeartbeat is the shortest time between two heartbeats.
	ShortestHeartbeat = 300 * time.Millisecond
	// MaxRefusals is how many refused bundles and statements do not end a stream.
	MaxRefusals = 32
)

// Acknowledgement is what a peer has acknowledged of a hosted domain's bundle: the latest sequence, or why it refused a
// later one.
type Acknowledgement struct {
	Sequence uint64
	Refusal  string
	Time     time.Time
}

// Session is the state of one end of a stream. It is not safe for concurrent use. The exported fields are read by the
// owner of the stream; only Refusals is also written by it.
type Session struct {
	Home, Remote string // the peer's home trust domain and its member at the other end
	OwnHome, own string
	Outgoing     bool
	Opened       time.Time

	introduced, Greeted bool
	lastReceived        time.Time
	NextHeartbeat       time.Time // when the next heartbeat is due

	// Wanted holds the hosted bundles that the peer wants, in the version that it has; sent and sentAt what was sent to
	// it last, and since when it is not acknowledged; Acknowledged what the peer has acknowledged.
	Wanted       map[string]relationship.Version
	sent         map[string]relationship.Version
	sentAt       map[string]time.Time
	Acknowledged map[string]Acknowledgement
	// statementsFrom is the sequence from which the peer lacks statements on a hosted bundle and was sent none.
	statementsFrom map[string]uint64
	// announced holds the versions of foreign bundles that the peer was informed of; Confirmed when the peer last
	// confirmed that the stored version is current.
	announced map[string]relationship.Version
	Confirmed map[string]time.Time
	// replies holds the acknowledgements to send, at most one per domain.
	replies map[string]*ententev1.PeerAcknowledgement
	// mapSubscriptions holds the subscriptions to hubs' maps; mapNumber is the number of the latest one, and mapStored
	// are the acknowledgements of map changes to send.
	mapSubscriptions map[string]mapSubscription
	mapNumber        uint64
	mapStored        []*ententev1.PeerMapAcknowledgement
	Refusals         int
}

// New returns the session of a new stream.
func New(ownHome, own, home, remote string, outgoing bool, now time.Time) *Session {
	return &Session{
		OwnHome: ownHome, own: own, Home: home, Remote: remote, Outgoing: outgoing,
		Opened: now, lastReceived: now, NextHeartbeat: now,
		Wanted: map[string]relationship.Version{}, sent: map[string]relationship.Version{},
		sentAt: map[string]time.Time{}, Acknowledged: map[string]Acknowledgement{},
		statementsFrom: map[string]uint64{}, Confirmed: map[string]time.Time{},
		replies: map[string]*ententev1.PeerAcknowledgement{}, mapSubscriptions: map[string]mapSubscription{},
	}
}

// Received is what a message requires beyond the session itself. At most one of its messages is set.
type Received struct {
	// Bundle is to be stored, and Statements to be checked, if this cluster wants them.
	Bundle     *ententev1.PeerBundle
	Statements *ententev1.PeerStatements
	// MapSubscription and MapStored are about this cluster's map, MapChanges about the peer's.
	MapSubscription *ententev1.PeerMapSubscription
	MapChanges      *ententev1.PeerMapChanges
	MapStored       *ententev1.PeerMapAcknowledgement
	// Confirmed are the domains of which the stored version is current.
	Confirmed []string
	// Ahead has the sequences of hosted domains of which the peer has a later version than this member.
	Ahead map[string]uint64
}

// Sent returns the version of a hosted bundle that was sent to the peer last.
func (s *Session) Sent(td string) relationship.Version { return s.sent[td] }

// Receive updates the session by a message of the peer. An error ends the stream.
func (s *Session) Receive(m *ententev1.PeerMessage, w World, now time.Time) (Received, error) {
	s.lastReceived = now
	hello, isHello := m.GetContent().(*ententev1.PeerMessage_Hello)
	switch {
	case isHello && s.Greeted:
		return Received{}, Errorf("unexpected_hello", "the peer sent a second hello")
	case isHello:
		s.Greeted = true
		return Received{}, s.checkHello(hello.Hello)
	case !s.Greeted:
		return Received{}, Errorf("no_hello", "the peer's first message is no hello")
	}
	switch c := m.GetContent().(type) {
	case *ententev1.PeerMessage_Subscription:
		err := s.receiveSubscription(c.Subscription, w, now)
		return Received{Ahead: s.ahead(w)}, err
	case *ententev1.PeerMessage_Bundle:
		if _, err := relationship.ParseTrustDomain(c.Bundle.GetTrustDomain()); err != nil {
			return Received{}, Errorf("malformed", "the peer sent a bundle of %s, which is no trust domain",
				relationship.Quote(c.Bundle.GetTrustDomain()))
		}
		return Received{Bundle: c.Bundle}, nil
	case *ententev1.PeerMessage_Statements:
		if _, err := relationship.ParseTrustDomain(c.Statements.GetTrustDomain()); err != nil {
			return Received{}, Errorf("malformed", "the peer sent statements on %s, which is no trust domain",
				relationship.Quote(c.Statements.GetTrustDomain()))
		}
		return Received{Statements: c.Statements}, nil
	case *ententev1.PeerMessage_MapSubscription:
		return Received{MapSubscription: c.MapSubscription}, nil
	case *ententev1.PeerMessage_MapChanges:
		return s.receiveMapChanges(c.MapChanges, w)
	case *ententev1.PeerMessage_MapAcknowledgement:
		return Received{MapStored: c.MapAcknowledgement}, nil
	case *ententev1.PeerMessage_Acknowledgement:
		err := s.receiveAcknowledgement(c.Acknowledgement, w, now)
		return Received{Ahead: s.ahead(w)}, err
	case *ententev1.PeerMessage_Heartbeat:
		return s.receiveHeartbeat(c.Heartbeat, w, now)
	case *ententev1.PeerMessage_Termination:
		reason := c.Termination.GetReason()
		if !slices.Contains(OrderlyReasons, reason) {
			reason = "terminated"
		}
		text := relationship.Clip(fmt.Sprintf("the peer ended the stream: %s", c.Termination.GetDetail()))
		return Received{}, &Error{Reason: reason, Text: text, ByPeer: true}
	}
	return Received{}, nil // of a later version
}

func (s *Session) checkHello(h *ententev1.PeerHello) error {
	switch {
	case h.GetVersion() < protocolVersion:
		return Errorf(
			"version",
			"the peer uses version %d of the protocol, and %d is the first",
			h.GetVersion(),
			protocolVersion,
		)
	case h.GetHomeTrustDomain() != s.Home || h.GetMember() != s.Remote:
		return Errorf("identity_mismatch", "the peer's hello names member %s of %s, and its X509-SVID member %s of %s",
			relationship.Quote(h.GetMember()), relationship.Quote(h.GetHomeTrustDomain()), s.Remote, s.Home)
	}
	return nil
}

func (s *Session) receiveSubscription(m *ententev1.PeerSubscription, w World, now time.Time) error {
	if n := len(m.GetWanted()); n > MaxDomains {
		return Errorf("too_many_domains", "the peer wants %d bundles; %d are the most on one stream", n, MaxDomains)
	}
	wanted, from := make(
		map[string]relationship.Version,
		len(m.GetWanted()),
	), make(
		map[string]uint64,
		len(m.GetWanted()),
	)
	for _, named := range m.GetWanted() {
		td, v, err := ParseVersion(named)
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
			from[td] = sent // nothing is sent twice, however often it is requested
		}
	}
	s.Wanted, s.statementsFrom = wanted, from
	s.NextHeartbeat = now // which of them are current is sent at once
	clear(s.sent)         // the interest has the versions that the peer has now
	maps.DeleteFunc(s.Acknowledged, func(td string, _ Acknowledgement) bool { _, ok := wanted[td]; return !ok })
	maps.DeleteFunc(s.sentAt, func(td string, _ time.Time) bool { _, ok := wanted[td]; return !ok })
	for td := range wanted {
		s.confirmOwn(td, w, now)
	}
	return nil
}

// ahead returns the sequences of hosted domains of which the peer has a later version than this member: one that this
// member has not received yet, or has lost.
func (s *Session) ahead(w World) map[string]uint64 {
	var ahead map[string]uint64
	for td, v := range s.Wanted {
		hosted, ok := w.Hosted[td]
		if !ok || !v.Ordered || v.Sequence <= hosted.Version.Sequence {
			continue
		}
		if ahead == nil {
			ahead = map[string]uint64{}
		}
		ahead[td] = v.Sequence
	}
	return ahead
}

// confirmOwn updates the acknowledgement of a domain, if the version that the peer has is known to be this cluster's
// own.
func (s *Session) confirmOwn(td string, w World, now time.Time) {
	hosted, ok := w.Hosted[td]
	if !ok {
		return
	}
	a, seen := s.Acknowledged[td]
	if !seen {
		a.Time = now
	}
	if known := s.Wanted[td]; !known.None() && (known == hosted.Version || known == s.sent[td]) &&
		(known.Sequence > a.Sequence || a.Refusal != "" || s.outstanding(td)) {
		a = Acknowledgement{max(known.Sequence, a.Sequence), "", now}
		if known == s.sent[td] || known == hosted.Version {
			delete(s.sentAt, td)
		}
	}
	s.Acknowledged[td] = a
}

func (s *Session) outstanding(td string) bool { _, ok := s.sentAt[td]; return ok }

func (s *Session) receiveAcknowledgement(m *ententev1.PeerAcknowledgement, w World, now time.Time) error {
	td, v, err := ParseVersion(m.GetVersion())
	if err != nil {
		return err
	}
	if _, wants := s.Wanted[td]; !wants {
		return nil // it was sent before the peer unsubscribed
	}
	if m.GetRefusal() != "" {
		if a := s.Acknowledged[td]; s.outstanding(td) {
			s.Acknowledged[td] = Acknowledgement{a.Sequence, refusalName(m.GetRefusal()), now}
			delete(s.sentAt, td)
		}
		return nil
	}
	s.Wanted[td] = v
	s.confirmOwn(td, w, now)
	return nil
}

// refusalName returns the peer's reason for a refusal, or "other" if it is not a short name.
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

func (s *Session) receiveHeartbeat(m *ententev1.PeerHeartbeat, w World, now time.Time) (Received, error) {
	if n := len(m.GetCurrent()); n > MaxDomains {
		return Received{}, Errorf(
			"too_many_domains",
			"the peer's heartbeat names %d bundles; %d are the most on one stream",
			n,
			MaxDomains,
		)
	}
	var t Received
	s.expireMaps(now)
	for _, named := range m.GetCurrent() {
		td, v, err := ParseVersion(named)
		if err != nil {
			return Received{}, err
		}
		if held, ok := w.Plan.Wanted[td]; ok && !v.None() && v == held.Version() {
			s.Confirmed[td] = now
			t.Confirmed = append(t.Confirmed, td)
		}
	}
	return t, nil
}

// Reply schedules the acknowledgement of a bundle that the peer sent: stored, or refused for a reason.
func (s *Session) Reply(td string, v relationship.Version, refusal string) {
	s.replies[td] = &ententev1.PeerAcknowledgement{Version: v.Message(td), Refusal: refusal}
	if refusal == "" {
		s.Confirmed[td] = s.lastReceived
		if s.announced != nil {
			s.announced[td] = v
		}
	}
}

// Overdue returns an error if the peer has exceeded a timeout.
func (s *Session) Overdue(now time.Time) error {
	silent := now.Sub(s.lastReceived)
	switch {
	case !s.Greeted && now.Sub(s.Opened) > HelloTimeout:
		return Errorf("silent", "the peer did not send a hello within %s", HelloTimeout)
	case silent > SilenceTimeout:
		return Errorf("silent", "the peer sent nothing for %s", silent.Round(time.Second))
	}
	for td, at := range s.sentAt {
		if now.Sub(at) > AcknowledgeTimeout {
			return Errorf(
				"unacknowledged",
				"the peer did not acknowledge the bundle of %s within %s",
				td,
				AcknowledgeTimeout,
			)
		}
	}
	return nil
}
