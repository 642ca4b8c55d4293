package hub

import (
	"sync"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// maxChangesBytes bounds the documents in one message, unless a single one is larger.
	maxChangesBytes = 128 << 10
	// retryInterval is when a message is retried that would have exceeded the peer's rate.
	retryInterval = 250 * time.Millisecond
	// heldPerDomain is what a domain that the peer has takes in memory besides its name, and heldPerPending what a
	// domain takes that is to be sent.
	heldPerDomain, heldPerPending = 128, 16
)

// sender sends this cluster's map over one stream. It implements [peer.MapSender].
type sender struct {
	budget peer.MapBudget
	log    *mapLog
	// entry returns the document of a domain in the map, or nil if the domain is not in it.
	entry func(td string) []byte

	mu            sync.Mutex
	subscriptions map[string]*subscription // by the domain with which the peer has its relationship
	// newest is the number of the peer's latest subscription.
	newest uint64
	closed bool
}

// subscription is what a peer takes from the map by one relationship.
type subscription struct {
	number uint64
	rules  *relationship.Hub
	// has is what the peer has, until all parts of the subscription have arrived. held is what has, and then pending,
	// takes from the peer's budget.
	has  map[string]relationship.Version
	held int64
	// pending are the domains to send. logNumber is that of the latest change that pending reflects, and complete is
	// set once the peer was informed that it was sent everything.
	pending   []string
	logNumber uint64
	complete  bool
	ready     bool
	confirmAt time.Time
	// outstanding are the messages that the peer has not stored, at least one since the given time.
	outstanding int
	since       time.Time
}

func newSender(budget peer.MapBudget, log *mapLog, entry func(td string) []byte) *sender {
	return &sender{budget: budget, log: log, entry: entry, subscriptions: map[string]*subscription{}}
}

// Active implements [peer.MapSender].
func (s *sender) Active() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subscriptions) > 0
}

// Close implements [peer.MapSender].
func (s *sender) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for hub := range s.subscriptions {
		s.dropLocked(hub)
	}
}

// dropLocked removes a subscription, if there is one. s.mu is held.
func (s *sender) dropLocked(hub string) {
	if sub := s.subscriptions[hub]; sub != nil {
		s.budget.Held.Release(sub.held)
		delete(s.subscriptions, hub)
	}
}

// Subscribe implements [peer.MapSender].
func (s *sender) Subscribe(m *ententev1.PeerMapSubscription, now time.Time) error {
	td, err := bundle.ParseTrustDomain(m.GetTrustDomain())
	if err != nil {
		return session.Errorf(
			"malformed",
			"the peer follows the map of %s, which is no trust domain",
			relationship.Quote(m.GetTrustDomain()),
		)
	}
	hub := td.Name()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil // the stream has its reason already
	}
	sub := s.subscriptions[hub]
	switch n := m.GetNumber(); {
	case n > s.newest:
		if sub, err = s.beginLocked(hub, m, now); sub == nil {
			return err
		}
	case sub == nil || sub.number != n || sub.ready || len(m.GetInclude())+len(m.GetExclude()) > 0:
		return session.Errorf(
			"malformed",
			"the peer subscribes to the map of %s under number %d, after %d",
			hub,
			n,
			s.newest,
		)
	}
	if err := s.addLocked(sub, m.GetHas()); err != nil || m.GetMore() {
		return err
	}
	covers := func(td string) bool { return td != hub && sub.rules.Covers(td) }
	sub.pending, sub.logNumber = s.log.differing(covers, sub.has)
	sub.has, sub.ready = nil, true
	s.budget.Held.Release(sub.held)
	sub.held = 0
	for _, td := range sub.pending {
		sub.held += pendingCost(td)
	}
	if !s.budget.Held.TryAcquire(sub.held) {
		sub.held = 0
		return tooMuchHeld()
	}
	return nil
}

// beginLocked replaces the subscription for a domain. It returns nil if the peer unsubscribes. s.mu is held.
func (s *sender) beginLocked(hub string, m *ententev1.PeerMapSubscription, now time.Time) (*subscription, error) {
	if !s.budget.Subscriptions.AllowN(now, 1) {
		return nil, session.Errorf(
			"flood",
			"the peer subscribes to the map more often than %v times a second",
			s.budget.Subscriptions.Limit(),
		)
	}
	s.newest = m.GetNumber()
	s.dropLocked(hub)
	if len(m.GetInclude()) == 0 {
		return nil, nil
	}
	if len(s.subscriptions) == peer.MaxMapSubscriptions {
		return nil, session.Errorf("too_many_domains", "the peer follows the map by %d relationships; %d are the most",
			len(s.subscriptions)+1, peer.MaxMapSubscriptions)
	}
	rules, err := relationship.ParseHub(&statev1.RelationshipHub{Include: m.GetInclude(), Exclude: m.GetExclude()})
	if err != nil {
		return nil, session.Errorf(
			"malformed",
			"the peer's subscription to the map cannot be read: %s",
			relationship.Clip(err.Error()),
		)
	}
	sub := &subscription{number: m.GetNumber(), rules: rules, has: map[string]relationship.Version{}}
	s.subscriptions[hub] = sub
	return sub, nil
}

// addLocked adds what the peer has. s.mu is held.
func (s *sender) addLocked(sub *subscription, has []*ententev1.PeerBundleVersion) error {
	if n := len(sub.has) + len(has); n > bundle.MaxMapDomains {
		return session.Errorf(
			"too_many_domains",
			"the peer has %d domains of the map; %d are the most",
			n,
			bundle.MaxMapDomains,
		)
	}
	for _, named := range has {
		td, v, err := session.ParseVersion(named)
		if err != nil {
			return err
		}
		if _, again := sub.has[td]; !again {
			held := int64(len(td) + heldPerDomain)
			if !s.budget.Held.TryAcquire(held) {
				return tooMuchHeld()
			}
			sub.held += held
		}
		sub.has[td] = v
	}
	return nil
}

func tooMuchHeld() error {
	return session.Errorf(
		"too_many_domains",
		"what the peer has of the map, over all its streams, takes more than %d bytes",
		peer.MaxHeld,
	)
}

func pendingCost(td string) int64 { return int64(len(td) + heldPerPending) }

// Acknowledge implements [peer.MapSender].
func (s *sender) Acknowledge(m *ententev1.PeerMapAcknowledgement, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subscriptions[m.GetTrustDomain()]
	switch {
	case sub == nil || sub.number != m.GetSubscription():
		return nil // the subscription was replaced meanwhile
	case sub.outstanding == 0:
		return session.Errorf(
			"malformed",
			"the peer acknowledges changes of the map of %s that were not sent",
			m.GetTrustDomain(),
		)
	}
	sub.outstanding--
	sub.since = now
	return nil
}

// Next implements [peer.MapSender].
func (s *sender) Next(
	now time.Time,
	every time.Duration,
) (out []*ententev1.PeerMessage, again time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hub, sub := range s.subscriptions {
		if !sub.ready {
			continue
		}
		if err := s.followLocked(hub, sub, now); err != nil {
			return nil, 0, err
		}
		messages, soon := s.sendLocked(hub, sub, now, every)
		if out = append(out, messages...); soon > 0 && (again == 0 || soon < again) {
			again = soon
		}
	}
	return out, again, nil
}

// followLocked adds the changes of the map to those that are to be sent. s.mu is held.
func (s *sender) followLocked(hub string, sub *subscription, now time.Time) error {
	names, number, ok := s.log.after(sub.logNumber)
	if !ok {
		return session.Errorf(
			"lagging",
			"the peer is too far behind the changes of the map; it is sent what it lacks on the next stream",
		)
	}
	sub.logNumber = number
	if sub.outstanding > 0 && now.Sub(sub.since) > session.AcknowledgeTimeout {
		return session.Errorf(
			"unacknowledged",
			"the peer did not acknowledge changes of the map of %s within %s",
			hub,
			session.AcknowledgeTimeout,
		)
	}
	if len(names) == 0 {
		return nil
	}
	waiting := make(map[string]bool, len(sub.pending))
	for _, td := range sub.pending {
		waiting[td] = true
	}
	more := int64(0)
	for _, td := range names {
		if td != hub && sub.rules.Covers(td) && !waiting[td] { // a waiting domain is sent as it is by then
			sub.pending, sub.complete = append(sub.pending, td), false
			more += pendingCost(td)
		}
	}
	if !s.budget.Held.TryAcquire(more) {
		return session.Errorf(
			"lagging",
			"the map changes faster than the peer acknowledges; it is sent what it lacks on the next stream",
		)
	}
	sub.held += more
	return nil
}

// sendLocked returns as much of what is pending as may be sent now, or the confirmation that everything was sent if
// that is due, and when to look again. s.mu is held.
func (s *sender) sendLocked(
	hub string,
	sub *subscription,
	now time.Time,
	every time.Duration,
) (out []*ententev1.PeerMessage, again time.Duration) {
	for range session.MapWindow + 1 {
		switch {
		case len(sub.pending) == 0 && sub.complete && now.Before(sub.confirmAt):
			return out, 0
		case len(sub.pending) > 0 && sub.outstanding == session.MapWindow:
			return out, 0 // until the peer acknowledges one
		case len(sub.pending) > 0 && s.budget.Bytes.TokensAt(now) < maxChangesBytes:
			return out, retryInterval
		}
		changes, size := sub.changes(hub, s.entry)
		s.budget.Bytes.ReserveN(now, min(size, s.budget.Bytes.Burst())) // a large document goes into debt
		if session.DomainsNamed(changes) > 0 {
			if sub.outstanding++; sub.outstanding == 1 {
				sub.since = now
			}
		}
		if changes.Complete {
			sub.complete, sub.confirmAt = true, now.Add(every/2) // so that it goes with each heartbeat
			s.budget.Held.Release(sub.held)
			sub.held = 0
		}
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapChanges{MapChanges: changes}})
	}
	return out, 0
}

// changes removes as much of what is pending as one message holds.
func (s *subscription) changes(hub string, entry func(td string) []byte) (m *ententev1.PeerMapChanges, size int) {
	m = &ententev1.PeerMapChanges{TrustDomain: hub, Subscription: s.number}
	n := 0
	for ; n < len(s.pending) && n < session.MapChangesDomains; n++ {
		td := s.pending[n]
		document := entry(td)
		if n > 0 && size+len(document) > maxChangesBytes {
			break // a large one goes by itself
		}
		size += len(td) + len(document) + 16
		if document == nil {
			m.Withdrawn = append(m.Withdrawn, td)
			continue
		}
		m.Bundles = append(m.Bundles, &ententev1.PeerBundle{TrustDomain: td, Document: document})
	}
	if s.pending = s.pending[n:]; len(s.pending) == 0 {
		s.pending, m.Complete = nil, true
	}
	return m, size
}
