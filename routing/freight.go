package routing

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/time/rate"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// The bounds of what one stream carries. The receiver of a stream ends it when much more comes than a peer in good order sends;
// what is sent here keeps to less than the half of that, and leaves room for the maps of hubs and for bundles.
const (
	// partBytes is about how much goes into one message, and turnBytes how much is sent before it is the bundles' turn again.
	partBytes, turnBytes = 128 << 10, 512 << 10
	// carryRate and carryBurst are how many messages a second are sent, and carryBytes how many bytes.
	carryRate, carryBurst           = 20, 256
	carryBytes, carryBytesBurst int = 384 << 10, 8 << 20
	// A list of what is imported is sent so often a second, and taken more often.
	listRate, listBurst         = 1, 10
	listsTaken, listsTakenBurst = 4, 40
	// maxInFlight is how many instances are sent without an answer, and maxSetsInFlight how many sets.
	maxInFlight, maxSetsInFlight = 8000, 256
	// maxUnstored is how many instances of one peer wait to be stored before it counts as one that does not wait for answers.
	maxUnstored = 2 * maxInFlight
)

// PeerStream is a stream to another cluster, as whoever carries it sees it.
type PeerStream struct {
	// Home is the peer's home trust domain, which was verified.
	Home string
	// Domains are the foreign trust domains whose relationships are in force and name the peer, in order. Called from any goroutine.
	Domains func() []string
	// Wake says that [Freight.Next] has something to send. Called from any goroutine; it must not block.
	Wake func()
}

// Freight is what one stream carries of services, both ways: what the peer imports from here and what is imported from it. It is
// made by [Manager.Carry] when the stream opens, and Run until it ends.
type Freight struct {
	m      *Manager
	stream PeerStream
	// work says that something is to be stored.
	work chan struct{}

	mu      sync.Mutex
	domains []string
	// messages and bytes hold back what is sent.
	messages, bytes, lists *rate.Limiter
	// listsTaken bounds how often the peer's list changes, complaints how often its refusals are logged.
	listsTaken, complaints *rate.Limiter

	// wanted is what the peer imports, with what it has; number is that of its list, and confirmed the last of which it was told
	// that it has all. feeds says of which services here the sets are made, due which are to be looked at.
	wanted            map[sharedKey]*wish
	number, confirmed uint64
	feeds             map[string]map[sharedKey]bool
	due               map[sharedKey]bool
	inFlight          int
	setsInFlight      int
	// heard is what the peer said last of each set, unreported what of it the leader was not told.
	heard      map[sharedKey]peerAnswer
	unreported map[sharedKey]bool
	// unmet is how many wishes are not met yet. last is the set that was sent last: the next turn begins behind it.
	unmet int
	last  sharedKey

	// taking is what this cluster imports from the peer, as it was told last under takingNumber; takingConfirmed says that the
	// peer has confirmed that list. stale says that the imports may have changed, and anew that
	// the list is to be sent even if they have not.
	taking          map[sharedKey]Import
	takingNumber    uint64
	takingConfirmed bool
	stale, anew     bool
	// told is what the peer was told that this cluster has of each; came are imports of which something was stored since, perhaps by
	// another stream.
	told     map[sharedKey]digest
	came     map[string]bool
	coming   *parcel
	arrived  map[sharedKey]arrival
	unstored int
	answers  []*ententev1.PeerServiceAcknowledgement
}

// wish is a set that a peer wants.
type wish struct {
	has digest
	// sent is the version that it has not answered for yet, of so many instances; refused the last that it refused.
	sent, refused digest
	size          int
	// met says that the peer has had, or refused, what there was of it since it sent its list.
	met bool
}

// parcel is a set that comes in parts.
type parcel struct {
	key       sharedKey
	digest    digest
	instances []*ententev1.PeerInstance
	many      bool
}

// Carry begins what a stream carries.
func (m *Manager) Carry(s PeerStream) *Freight {
	f := &Freight{
		m: m, stream: s, work: make(chan struct{}, 1), stale: true,
		messages: rate.NewLimiter(carryRate, carryBurst), bytes: rate.NewLimiter(rate.Limit(carryBytes), carryBytesBurst),
		lists: rate.NewLimiter(listRate, listBurst), listsTaken: rate.NewLimiter(listsTaken, listsTakenBurst), complaints: rate.NewLimiter(1, 10),
		wanted: make(map[sharedKey]*wish), feeds: make(map[string]map[sharedKey]bool), due: make(map[sharedKey]bool),
		heard: make(map[sharedKey]peerAnswer), unreported: make(map[sharedKey]bool),
		taking: make(map[sharedKey]Import), told: make(map[sharedKey]digest), came: make(map[string]bool), arrived: make(map[sharedKey]arrival),
	}
	m.carrying.add(f)
	return f
}

// Take takes in a message of the peer's. An error ends the stream. It does not block.
func (f *Freight) Take(m *ententev1.PeerMessage) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch c := m.GetContent().(type) {
	case *ententev1.PeerMessage_Services:
		for _, a := range c.Services.GetAcknowledgements() {
			if err := f.takeAnswer(a); err != nil {
				return err
			}
		}
		if c.Services.GetInterest() != nil {
			return f.takeInterest(c.Services.GetInterest())
		}
	case *ententev1.PeerMessage_ServiceSets:
		for _, part := range c.ServiceSets.GetSets() {
			if err := f.takePart(part); err != nil {
				return err
			}
		}
		if n := c.ServiceSets.GetConfirmed(); n != 0 && n == f.takingNumber {
			f.takingConfirmed = true
		}
	}
	return nil
}

// takeInterest replaces what the peer wants.
func (f *Freight) takeInterest(m *ententev1.PeerServiceInterest) error {
	if n := len(m.GetWanted()); n > maxImports {
		return fmt.Errorf("the peer wants %d services; %d are the most on one stream", n, maxImports)
	}
	if m.GetNumber() <= f.number {
		return fmt.Errorf("the peer's list of services has the number %d, and it had %d before", m.GetNumber(), f.number)
	}
	if !f.listsTaken.Allow() {
		return fmt.Errorf("the peer changes its list of services more than %d times a second", listsTaken)
	}
	f.number = m.GetNumber()
	next := make(map[sharedKey]*wish, len(m.GetWanted()))
	for _, named := range m.GetWanted() {
		key, has, err := parseShared(named)
		if err != nil {
			return err
		}
		w := f.wanted[key]
		if w == nil {
			w = &wish{}
		}
		w.has, w.refused, w.met = has, digest{}, false
		if !has.none() {
			f.answered(key, has, "")
		}
		next[key] = w
		f.due[key] = true
	}
	for key, w := range f.wanted {
		if next[key] == nil {
			f.landed(w)
			delete(f.due, key)
			f.answered(key, digest{}, "")
		}
	}
	f.wanted, f.unmet = next, len(next)
	maps.DeleteFunc(f.feeds, func(_ string, keys map[sharedKey]bool) bool {
		maps.DeleteFunc(keys, func(key sharedKey, _ bool) bool { return next[key] == nil })
		return len(keys) == 0
	})
	return nil
}

// landed says that nothing of a wish is under way any more.
func (f *Freight) landed(w *wish) {
	if !w.sent.none() {
		f.inFlight -= w.size
		f.setsInFlight--
		w.sent, w.size = digest{}, 0
	}
}

// meet says that the peer has had a set, or refused it, since it sent its list.
func (f *Freight) meet(w *wish) {
	if !w.met {
		w.met = true
		f.unmet--
	}
}

func (f *Freight) takeAnswer(m *ententev1.PeerServiceAcknowledgement) error {
	key, which, err := parseShared(m.GetVersion())
	if err != nil {
		return err
	}
	w := f.wanted[key]
	if w == nil || which.none() {
		return nil // it wants it no more
	}
	if w.sent != which {
		if m.GetRefusal() == "" && w.has != which {
			w.has, w.refused = which, digest{} // what it has is from another stream
			f.due[key] = true
			f.answered(key, which, "")
		}
		return nil
	}
	f.landed(w)
	f.meet(w)
	f.answered(key, which, m.GetRefusal())
	f.due[key] = true // it may have changed meanwhile
	if m.GetRefusal() == "" {
		w.has, w.refused = which, digest{}
		f.m.metrics.exported.WithLabelValues("acknowledged").Inc()
		return nil
	}
	w.refused = which
	f.m.metrics.exported.WithLabelValues("refused").Inc()
	if !f.complaints.Allow() {
		return nil
	}
	f.m.log.Warn("a peer refuses what is exported to it; see 'entente service imports' there", "peer", f.stream.Home, "service", key.service,
		"trust_domain", key.domain, "result", refusalWord(m.GetRefusal()))
	return nil
}

// takePart takes a part of a set. The parts of one set follow each other without another between them.
func (f *Freight) takePart(m *ententev1.PeerServiceSet) error {
	key, which, err := parseShared(m.GetVersion())
	switch {
	case err != nil:
		return err
	case which.none():
		return fmt.Errorf("the peer brings %s without a digest", key)
	case f.coming == nil:
		f.coming = &parcel{key: key, digest: which}
	case f.coming.key != key || f.coming.digest != which:
		return fmt.Errorf("the peer brings %s before all of %s has come", key, f.coming.key)
	}
	p := f.coming
	_, wanted := f.taking[key]
	switch {
	case !wanted:
		p.instances = nil
	case p.many || len(p.instances)+len(m.GetInstances()) > maxImportedSet:
		p.many, p.instances = true, nil
	default:
		p.instances = append(p.instances, m.GetInstances()...)
	}
	if !m.GetLast() {
		return nil
	}
	f.coming = nil
	if !wanted {
		if len(f.answers) > 4*maxImports {
			return fmt.Errorf("the peer brings services that nobody imports: %d answers wait to be taken", len(f.answers))
		}
		f.answer(key, which, refusedNotImported)
		return nil
	}
	a := arrival{key: key, digest: which, withheld: m.GetWithheld(), of: f.taking[key]}
	if p.many {
		a.refused = refuse(refusedMany, "it has more than %d instances, which is the most for an import; export fewer of them", maxImportedSet)
	} else {
		a.instances, a.refused = readSet(key, which, a.withheld, p.instances)
	}
	f.unstored += len(a.instances) - len(f.arrived[key].instances)
	f.arrived[key] = a
	if f.unstored > maxUnstored {
		return fmt.Errorf("the peer brings services without waiting for answers: %d instances are not stored yet", f.unstored)
	}
	f.signal()
	return nil
}

func (f *Freight) signal() {
	select {
	case f.work <- struct{}{}:
	default:
	}
}

// answer says what became of a set.
func (f *Freight) answer(key sharedKey, which digest, refusal string) {
	f.answers = append(f.answers, &ententev1.PeerServiceAcknowledgement{Version: key.version(which), Refusal: refusal})
}

// seen are the trust domains whose imports this stream keeps confirmed.
func (f *Freight) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.takingConfirmed {
		return nil
	}
	of := make(map[string]bool)
	for key := range f.taking {
		of[key.domain] = true
	}
	return slices.Collect(maps.Keys(of))
}
