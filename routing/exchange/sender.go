package exchange

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// The bounds of what one stream sends. The receiver ends a stream that exceeds more than twice these rates; the rest of
// its allowance is for bundles and for the maps of hubs.
const (
	// partBytes is about the size of one message, and turnBytes what is sent before bundles have a turn.
	partBytes, turnBytes = 128 << 10, 512 << 10
	// sendRate and sendBurst are messages a second, sendBytes and sendBytesBurst bytes a second.
	sendRate, sendBurst           = 20, 256
	sendBytes, sendBytesBurst int = 384 << 10, 8 << 20
	// maxInFlight bounds the instances that are sent and not acknowledged, maxSetsInFlight the sets.
	maxInFlight, maxSetsInFlight = 8000, 256
	// acceptedLists and acceptedListsBurst are how many lists of subscriptions a second are accepted from the peer.
	acceptedLists, acceptedListsBurst = 4, 40
	// exportSilence is how long a member without contact with the leader continues to export what it knows.
	exportSilence = 5 * time.Second
)

// sender is the half of a [Sync] that sends the sets which the peer imports. The Sync's lock guards it.
type sender struct {
	syncParts
	home string
	// messages and bytes limit what is sent, lists how often the peer changes its subscriptions, warnings how often
	// refusals are logged.
	messages, bytes, lists, warnings *rate.Limiter

	// subscriptions are the sets that the peer imports. number is that of its list, and confirmed that of the last list
	// for which it was sent the confirmation that it has everything.
	subscriptions     map[setKey]*subscription
	number, confirmed uint64
	// sources has, for each service here, the sets that contain it. due are the sets that may have to be sent.
	sources map[string]map[setKey]bool
	due     map[setKey]bool
	// inFlight and setsInFlight count what is sent and not acknowledged, and unmet the subscriptions that are not met.
	inFlight, setsInFlight, unmet int
	// last is the set that was sent last. The next turn begins behind it.
	last setKey
}

// subscription is a set that the peer imports.
type subscription struct {
	// has is the version that the peer has, refused the last one that it refused. sent is the version that it has not
	// acknowledged, which has size instances.
	has, refused, sent digest
	size               int
	// met means that the peer has acknowledged or refused the present version since its last list.
	met bool
}

func newSender(parts syncParts, home string) sender {
	return sender{
		syncParts: parts, home: home,
		messages: rate.NewLimiter(sendRate, sendBurst), bytes: rate.NewLimiter(rate.Limit(sendBytes), sendBytesBurst),
		lists: rate.NewLimiter(acceptedLists, acceptedListsBurst), warnings: rate.NewLimiter(1, 10),
		subscriptions: make(
			map[setKey]*subscription,
		), sources: make(map[string]map[setKey]bool), due: make(map[setKey]bool),
	}
}

func compareKeys(a, b setKey) int {
	return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.service, b.service))
}

// subscribe replaces the subscriptions of the peer.
func (s *sender) subscribe(m *ententev1.PeerServiceSubscription) error {
	if n := len(m.GetWanted()); n > maxImports {
		return fmt.Errorf("the peer subscribes to %d services; %d are allowed on one stream", n, maxImports)
	}
	if m.GetNumber() <= s.number {
		return fmt.Errorf(
			"the peer's list of subscriptions has the number %d, which is not above the previous number %d",
			m.GetNumber(), s.number,
		)
	}
	if !s.lists.Allow() {
		return fmt.Errorf("the peer changes its subscriptions more than %d times a second", acceptedLists)
	}
	s.number = m.GetNumber()
	next := make(map[setKey]*subscription, len(m.GetWanted()))
	for _, wanted := range m.GetWanted() {
		key, has, err := parseVersion(wanted)
		if err != nil {
			return err
		}
		sub := s.subscriptions[key]
		if sub == nil {
			sub = &subscription{}
		}
		sub.has, sub.refused, sub.met = has, digest{}, false
		if !has.none() {
			s.outcomes.set(s.home, key, has, "")
		}
		next[key] = sub
		s.due[key] = true
	}
	for key, sub := range s.subscriptions {
		if next[key] == nil {
			s.landed(sub)
			delete(s.due, key)
			s.outcomes.set(s.home, key, digest{}, "")
		}
	}
	s.subscriptions, s.unmet = next, len(next)
	maps.DeleteFunc(s.sources, func(_ string, keys map[setKey]bool) bool {
		maps.DeleteFunc(keys, func(key setKey, _ bool) bool { return next[key] == nil })
		return len(keys) == 0
	})
	return nil
}

// landed records that no version of a set is in flight any more.
func (s *sender) landed(sub *subscription) {
	if !sub.sent.none() {
		s.inFlight -= sub.size
		s.setsInFlight--
		sub.sent, sub.size = digest{}, 0
	}
}

func (s *sender) meet(sub *subscription) {
	if !sub.met {
		sub.met = true
		s.unmet--
	}
}

// acknowledge records that the peer has stored or refused a version of a set.
func (s *sender) acknowledge(m *ententev1.PeerServiceAcknowledgement) error {
	key, version, err := parseVersion(m.GetVersion())
	if err != nil {
		return err
	}
	sub := s.subscriptions[key]
	if sub == nil || version.none() {
		return nil // the subscription has ended
	}
	if sub.sent != version {
		if m.GetRefusal() == "" && sub.has != version {
			sub.has, sub.refused = version, digest{} // the peer has received it over another stream
			s.due[key] = true
			s.outcomes.set(s.home, key, version, "")
		}
		return nil
	}
	s.landed(sub)
	s.meet(sub)
	s.outcomes.set(s.home, key, version, m.GetRefusal())
	s.due[key] = true // it may have changed meanwhile
	if m.GetRefusal() == "" {
		sub.has, sub.refused = version, digest{}
		s.metrics.exported.WithLabelValues("acknowledged").Inc()
		return nil
	}
	sub.refused = version
	s.metrics.exported.WithLabelValues("refused").Inc()
	if s.warnings.Allow() {
		s.log.Warn("a peer refuses an exported service; for details run 'entente service imports' there",
			"peer", s.home, "service", key.service, "trust_domain", key.domain, "result", reasonWord(m.GetRefusal()))
	}
	return nil
}

// next returns the sets that the peer imports and does not have in the present version, as far as the limits allow.
func (s *sender) next(
	view raftstore.Reader, domains []string, now time.Time,
) (messages []*ententev1.PeerServiceSets, again time.Duration) {
	if s.number == 0 {
		return nil, 0
	}
	if s.now().Sub(s.lastContact()) > exportSilence {
		return nil, time.Second // the state of this member may be old; streams of other members send the present state
	}
	var p packer
	for _, key := range s.turn() {
		set, err := s.outdated(view, domains, key)
		if err != nil {
			s.log.Error("cannot read an exported service", "service", key.service, "error", err)
			again = time.Second
			break
		}
		if set == nil {
			continue
		}
		if s.setsInFlight > 0 && (s.inFlight+len(set.instances) > maxInFlight || s.setsInFlight >= maxSetsInFlight) {
			break // the next acknowledgement makes room
		}
		if p.total > turnBytes {
			again = time.Millisecond
			break
		}
		if !s.pack(&p, set, now) {
			again = holdBack
			break
		}
		s.sending(key, set)
	}
	messages = p.finish()
	if s.unmet == 0 && s.confirmed != s.number {
		s.confirmed = s.number
		messages = append(messages, &ententev1.PeerServiceSets{Confirmed: s.number})
	}
	return messages, again
}

// outdated returns a due set that the peer does not have in the present version, or nil.
func (s *sender) outdated(view raftstore.Reader, domains []string, key setKey) (*exportedSet, error) {
	sub := s.subscriptions[key]
	if sub == nil {
		delete(s.due, key)
		return nil, nil
	}
	if !sub.sent.none() {
		return nil, nil // one version is in flight at a time; its acknowledgement makes the set due again
	}
	set, services, err := s.sets.get(view, domains, key)
	if err != nil {
		return nil, err
	}
	s.addSources(key, services)
	// A set that is again as it was before a refusal is sent, so that the peer can forget the refusal.
	if set.digest == sub.has && sub.refused.none() || set.digest == sub.refused {
		delete(s.due, key)
		s.meet(sub)
		return nil, nil
	}
	return set, nil
}

// pack adds a set to the messages, and reports whether the rate of the stream allows it.
func (s *sender) pack(p *packer, set *exportedSet, now time.Time) bool {
	parts := set.parts()
	bytes := 0
	for _, part := range parts {
		bytes += proto.Size(part)
	}
	if s.messages.TokensAt(now) < float64(len(parts)) || s.bytes.TokensAt(now) < float64(min(bytes, sendBytesBurst)) {
		return false
	}
	s.bytes.AllowN(now, min(bytes, sendBytesBurst))
	for _, part := range parts {
		if p.add(part) {
			s.messages.AllowN(now, 1)
		}
	}
	return true
}

// packer packs parts of sets into messages of bounded size.
type packer struct {
	messages []*ententev1.PeerServiceSets
	open     *ententev1.PeerServiceSets
	size     int // of open
	total    int
}

// add adds a part, and reports whether it starts a message.
func (p *packer) add(part *ententev1.PeerServiceSet) (starts bool) {
	n := proto.Size(part)
	if p.size > 0 && p.size+n > partBytes {
		p.messages, p.open, p.size = append(p.messages, p.open), nil, 0
	}
	if p.open == nil {
		p.open, starts = &ententev1.PeerServiceSets{}, true
	}
	p.open.Sets = append(p.open.Sets, part)
	p.size += n
	p.total += n
	return starts
}

// finish returns the messages.
func (p *packer) finish() []*ententev1.PeerServiceSets {
	if p.open == nil {
		return p.messages
	}
	return append(p.messages, p.open)
}

// sending records that a set is in flight.
func (s *sender) sending(key setKey, set *exportedSet) {
	sub := s.subscriptions[key]
	delete(s.due, key)
	s.last = key
	sub.sent, sub.size = set.digest, len(set.instances)
	s.inFlight += sub.size
	s.setsInFlight++
	s.metrics.exported.WithLabelValues("sent").Inc()
}

// turn returns the due sets in an order that begins behind the set that was sent last, so that a set that changes all
// the time does not delay the others.
func (s *sender) turn() []setKey {
	keys := slices.SortedFunc(maps.Keys(s.due), compareKeys)
	after, found := slices.BinarySearchFunc(keys, s.last, compareKeys)
	if found {
		after++
	}
	return slices.Concat(keys[after:], keys[:after])
}

// addSources records which services here a set consists of.
func (s *sender) addSources(key setKey, services []string) {
	for _, name := range services {
		if s.sources[name] == nil {
			s.sources[name] = make(map[setKey]bool)
		}
		s.sources[name][key] = true
	}
}

// affectAll marks all subscriptions as due.
func (s *sender) affectAll() (affected bool) {
	for key := range s.subscriptions {
		s.due[key] = true
		affected = true
	}
	return affected
}

// affect marks the sets that changes affect as due, and reports whether there are any.
func (s *sender) affect(c sharedChanges) (affected bool) {
	if c.all {
		return s.affectAll()
	}
	for _, name := range c.services {
		for key := range s.sources[name] {
			s.due[key] = true
			affected = true
		}
	}
	return affected
}
