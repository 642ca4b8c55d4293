package routing

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	// maxAnswers is how many answers go into one message.
	maxAnswers = 500
	// exportSilence is for how long a member that does not hear from its leader goes on to export what it knows.
	exportSilence = 5 * time.Second
	// heldBack is when a stream that sends too much is looked at again.
	heldBack = 50 * time.Millisecond
)

func compareKeys(a, b sharedKey) int {
	return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.service, b.service))
}

// Next returns what is to be sent now, in order; it counts as sent. A time says when to ask again although nobody wakes.
func (f *Freight) Next(now time.Time) (out []*ententev1.PeerMessage, again time.Duration) {
	domains := f.stream.Domains()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(domains, f.domains) {
		f.domains, f.stale = domains, true
		for key := range f.wanted {
			f.due[key] = true
		}
	}
	view := f.m.store.View()
	if err := f.tell(view); err != nil {
		f.m.log.Error("what was imported cannot be read", "error", err)
	}
	wait := time.Duration(0)
	if (f.stale || f.anew) && f.lists.TokensAt(now) < 1 {
		wait = heldBack
	} else if f.stale || f.anew {
		if m, err := f.nextInterest(view); err != nil {
			f.m.log.Error("the imports cannot be read", "error", err)
		} else if m != nil {
			f.lists.AllowN(now, 1)
			out = append(out, m)
		}
	}
	for len(f.answers) > 0 {
		n := min(len(f.answers), maxAnswers)
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Services{Services: &ententev1.PeerServices{Acknowledgements: f.answers[:n:n]}}})
		f.answers = f.answers[n:]
	}
	sets, again := f.nextSets(view, now)
	for _, m := range sets {
		out = append(out, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_ServiceSets{ServiceSets: m}})
	}
	if wait > 0 && (again == 0 || wait < again) {
		again = wait
	}
	return out, again
}

// nextInterest tells the peer what is imported from it, when that has changed.
func (f *Freight) nextInterest(view raftstore.Reader) (*ententev1.PeerMessage, error) {
	list, err := imports(view)
	if err != nil {
		return nil, err
	}
	next := make(map[sharedKey]Import)
	for _, i := range list {
		if !slices.Contains(f.domains, i.From) {
			continue
		}
		agreement, found, err := f.m.agreements.With(view, i.From)
		if err != nil {
			return nil, err
		}
		if found && i.counts(agreement) {
			next[sharedKey{i.From, i.Name}] = i
		}
	}
	f.stale = false
	same := maps.EqualFunc(next, f.taking, func(a, b Import) bool { return a.id == b.id })
	if same && !f.anew && (f.takingNumber > 0 || len(next) == 0) {
		return nil, nil
	}
	f.taking, f.takingConfirmed, f.anew = next, false, false
	f.takingNumber++
	interest := &ententev1.PeerServiceInterest{Number: f.takingNumber}
	clear(f.told)
	clear(f.came)
	for _, key := range slices.SortedFunc(maps.Keys(next), compareKeys) {
		i := next[key]
		has, _, err := i.has(view)
		if err != nil {
			return nil, err
		}
		f.told[key] = has
		interest.Wanted = append(interest.Wanted, key.version(has))
	}
	return &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Services{Services: &ententev1.PeerServices{Interest: interest}}}, nil
}

// has is what is stored of an import; none after a refusal, so that the peer brings what there is now.
func (i Import) has(r raftstore.Reader) (d digest, refused bool, err error) {
	came, found, err := ImportedSets.Get(r, i.key())
	if err != nil || !found || came.Value.GetImport() != i.id {
		return d, false, err
	}
	if refused = came.Value.GetRefused() != ""; !refused {
		copy(d[:], came.Value.GetDigest())
	}
	return d, refused, nil
}

// tell answers for what was stored otherwise than by this stream: by another one, whose member of the peer may know less or more, or
// by a restore. The peer then sends what differs.
func (f *Freight) tell(view raftstore.Reader) error {
	if len(f.came) == 0 {
		return nil
	}
	for key, i := range f.taking {
		if _, waits := f.arrived[key]; waits || !f.came[i.key()] {
			continue
		}
		has, refused, err := i.has(view)
		switch {
		case err != nil:
			return err
		case refused || has == f.told[key]:
			continue
		case has.none(): // which no answer can say
			f.anew = true
			continue
		}
		f.told[key] = has
		f.answer(key, has, "")
	}
	clear(f.came)
	return nil
}

// nextSets sends what the peer wants and has in another version, as far as there is room on the way.
func (f *Freight) nextSets(view raftstore.Reader, now time.Time) (out []*ententev1.PeerServiceSets, again time.Duration) {
	if f.number == 0 {
		return nil, 0
	}
	if now := f.m.now(); now.Sub(f.m.lastHeard()) > exportSilence {
		return nil, time.Second // what this member knows may be old, and other members' streams bring what is new
	}
	sent := 0
	message, size := &ententev1.PeerServiceSets{}, 0
	flush := func() {
		if len(message.GetSets()) > 0 {
			out = append(out, message)
		}
		message, size = &ententev1.PeerServiceSets{}, 0
	}
	for _, key := range f.turn() {
		w := f.wanted[key]
		if w == nil {
			delete(f.due, key)
			continue
		}
		if !w.sent.none() {
			continue // one version at a time; its answer makes it due again
		}
		set, services, err := f.m.offered(view, f.domains, key)
		if err != nil {
			f.m.log.Error("what is exported cannot be read", "service", key.service, "error", err)
			again = time.Second
			break
		}
		f.feed(key, services)
		// What is as it was before a refusal is sent again, so that the refusal is over there too.
		if set.digest == w.has && w.refused.none() || set.digest == w.refused {
			delete(f.due, key)
			f.meet(w)
			continue
		}
		if f.setsInFlight > 0 && (f.inFlight+len(set.instances) > maxInFlight || f.setsInFlight >= maxSetsInFlight) {
			break // the next answer makes room
		}
		if sent > turnBytes {
			again = time.Millisecond
			break
		}
		parts := set.parts()
		bytes := 0
		for _, p := range parts {
			bytes += proto.Size(p)
		}
		if f.messages.TokensAt(now) < float64(len(parts)) || f.bytes.TokensAt(now) < float64(min(bytes, carryBytesBurst)) {
			again = heldBack
			break
		}
		f.bytes.AllowN(now, min(bytes, carryBytesBurst))
		for _, p := range parts {
			n := proto.Size(p)
			if size > 0 && size+n > partBytes {
				flush()
			}
			if size == 0 {
				f.messages.AllowN(now, 1)
			}
			message.Sets = append(message.Sets, p)
			size += n
		}
		delete(f.due, key)
		f.last = key
		w.sent, w.size = set.digest, len(set.instances)
		f.inFlight += w.size
		f.setsInFlight++
		sent += bytes
		f.m.metrics.exported.WithLabelValues("sent").Inc()
	}
	flush()
	if f.unmet == 0 && f.confirmed != f.number {
		f.confirmed = f.number
		out = append(out, &ententev1.PeerServiceSets{Confirmed: f.number})
	}
	return out, again
}

// turn is what is due, in an order that begins behind what was sent last, so that a set that changes all the time holds no other up.
func (f *Freight) turn() []sharedKey {
	keys := slices.SortedFunc(maps.Keys(f.due), compareKeys)
	after, found := slices.BinarySearchFunc(keys, f.last, compareKeys)
	if found {
		after++
	}
	return slices.Concat(keys[after:], keys[:after])
}

// feed remembers of which services here a set is made.
func (f *Freight) feed(key sharedKey, services []string) {
	for _, name := range services {
		if f.feeds[name] == nil {
			f.feeds[name] = make(map[sharedKey]bool)
		}
		f.feeds[name][key] = true
	}
}

// parts cuts a set into messages of a bounded size.
func (s *sharedSet) parts() (out []*ententev1.PeerServiceSet) {
	part, size := &ententev1.PeerServiceSet{Version: s.key.version(s.digest), Withheld: s.withheld}, 0
	for _, i := range s.instances {
		n := proto.Size(i) + 4
		if size > 0 && size+n > partBytes {
			out = append(out, part)
			part, size = &ententev1.PeerServiceSet{Version: part.GetVersion()}, 0
		}
		part.Instances = append(part.Instances, i)
		size += n
	}
	part.Last = true
	return append(out, part)
}
