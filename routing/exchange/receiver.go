package exchange

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/registry"
)

const (
	// listRate and listBurst are how many lists of subscriptions a second are sent.
	listRate, listBurst = 1, 10
	// maxAcks bounds the acknowledgements of one message, maxWaitingAcks those that wait to be sent for sets without a
	// subscription.
	maxAcks, maxWaitingAcks = 500, 4 * maxImports
	// maxUnstored bounds the received instances that wait to be stored. A peer that waits for acknowledgements stays
	// below it.
	maxUnstored = 2 * maxInFlight
	// batchSets and batchInstances bound the sets that are stored together.
	batchSets, batchInstances = 64, 2000
)

// receiver is the half of a [Sync] that subscribes to the sets which are imported from the peer, and receives them. The
// Sync's lock guards it.
type receiver struct {
	syncParts
	lists *rate.Limiter
	// work announces that sets wait to be stored.
	work chan struct{}

	// imports are the subscriptions that were sent in the list of that number. confirmed means that the peer has
	// confirmed the list. The list is built again if the imports may have changed (stale), and sent even without a
	// change if resend is set.
	imports       map[setKey]serviceImport
	number        uint64
	confirmed     bool
	stale, resend bool
	// announced is the version of each set that the peer knows this cluster to have. changed are the keys of imports
	// for which something was stored since, perhaps by another stream.
	announced map[setKey]digest
	changed   map[string]bool

	partial  *partialSet
	received map[setKey]receivedSet
	unstored int // instances of received
	acks     []*ententev1.PeerServiceAcknowledgement
}

// partialSet is a set of which not all parts have been received.
type partialSet struct {
	key       setKey
	digest    digest
	instances []*ententev1.PeerInstance
	tooMany   bool
}

// receivedSet is a set that was received completely, with the result of parsing it.
type receivedSet struct {
	key         setKey
	digest      digest
	notExported bool
	instances   []registry.Instance
	// refused is why the set is refused, or nil.
	refused error
	// wanted is the import that subscribed to it.
	wanted serviceImport
}

func newReceiver(parts syncParts) receiver {
	return receiver{
		syncParts: parts, lists: rate.NewLimiter(listRate, listBurst), work: make(chan struct{}, 1), stale: true,
		imports: make(map[setKey]serviceImport), announced: make(map[setKey]digest), changed: make(map[string]bool),
		received: make(map[setKey]receivedSet),
	}
}

// receivePart takes over a part of a set. The parts of a set follow each other without parts of other sets between
// them.
func (r *receiver) receivePart(m *ententev1.PeerServiceSet) error {
	key, version, err := parseVersion(m.GetVersion())
	switch {
	case err != nil:
		return err
	case version.none():
		return fmt.Errorf("the peer sent %s without a digest", key)
	case r.partial == nil:
		r.partial = &partialSet{key: key, digest: version}
	case r.partial.key != key || r.partial.digest != version:
		return fmt.Errorf("the peer sent %s before all parts of %s", key, r.partial.key)
	}
	p := r.partial
	wanted, subscribed := r.imports[key]
	switch {
	case !subscribed:
		p.instances = nil
	case p.tooMany || len(p.instances)+len(m.GetInstances()) > maxImportedSet:
		p.tooMany, p.instances = true, nil
	default:
		p.instances = append(p.instances, m.GetInstances()...)
	}
	if !m.GetLast() {
		return nil
	}
	r.partial = nil
	if !subscribed {
		if len(r.acks) > maxWaitingAcks {
			return fmt.Errorf(
				"the peer sends services that are not imported: %d acknowledgements wait to be sent",
				len(r.acks),
			)
		}
		r.ack(key, version, refusedNotImported)
		return nil
	}
	set := receivedSet{key: key, digest: version, notExported: m.GetNotExported(), wanted: wanted}
	if p.tooMany {
		set.refused = tooMany()
	} else {
		set.instances, set.refused = parseSet(key, version, set.notExported, p.instances)
	}
	r.unstored += len(set.instances) - len(r.received[key].instances)
	r.received[key] = set
	if r.unstored > maxUnstored {
		return fmt.Errorf(
			"the peer sends services without waiting for acknowledgements: %d instances are not stored yet",
			r.unstored,
		)
	}
	select {
	case r.work <- struct{}{}:
	default:
	}
	return nil
}

// batch removes and returns some of the sets that wait to be stored, all of one trust domain.
func (r *receiver) batch() (batch []receivedSet) {
	size := 0
	for _, key := range slices.SortedFunc(maps.Keys(r.received), compareKeys) {
		set := r.received[key]
		if len(batch) > 0 &&
			(key.domain != batch[0].key.domain || size+len(set.instances) > batchInstances || len(batch) >= batchSets) {
			break
		}
		batch = append(batch, set)
		size += len(set.instances)
		delete(r.received, key)
	}
	r.unstored -= size
	return batch
}

// putBack returns sets that could not be stored. A newer version that was received meanwhile takes precedence.
func (r *receiver) putBack(batch []receivedSet) {
	for _, set := range batch {
		if _, newer := r.received[set.key]; !newer {
			r.received[set.key] = set
			r.unstored += len(set.instances)
		}
	}
}

// stored acknowledges a batch. Each outcome is the named reason of a refusal, or "" if the set is stored.
func (r *receiver) stored(batch []receivedSet, outcomes []string) {
	for n, set := range batch {
		r.ack(set.key, set.digest, outcomes[n])
		if outcomes[n] == "" {
			r.announced[set.key] = set.digest
		}
	}
}

func (r *receiver) ack(key setKey, version digest, refusal string) {
	r.acks = append(r.acks, &ententev1.PeerServiceAcknowledgement{Version: key.version(version), Refusal: refusal})
}

// next returns the list of subscriptions, if it has changed, and the acknowledgements.
func (r *receiver) next(
	view raftstore.Reader,
	domains []string,
	now time.Time,
) (out []*ententev1.PeerMessage, again time.Duration) {
	if err := r.announceChanges(view); err != nil {
		r.log.Error("cannot read the imported sets", "error", err)
	}
	switch {
	case !r.stale && !r.resend:
	case r.lists.TokensAt(now) < 1:
		again = holdBack
	default:
		if list, err := r.nextList(view, domains); err != nil {
			r.log.Error("cannot read the imports", "error", err)
		} else if list != nil {
			r.lists.AllowN(now, 1)
			out = append(out, servicesMessage(&ententev1.PeerServices{Subscription: list}))
		}
	}
	for len(r.acks) > 0 {
		n := min(len(r.acks), maxAcks)
		out = append(out, servicesMessage(&ententev1.PeerServices{Acknowledgements: r.acks[:n:n]}))
		r.acks = r.acks[n:]
	}
	return out, again
}

func servicesMessage(m *ententev1.PeerServices) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{Content: &ententev1.PeerMessage_Services{Services: m}}
}

// nextList returns the list of subscriptions, or nil if the peer has it already.
func (r *receiver) nextList(view raftstore.Reader, domains []string) (*ententev1.PeerServiceSubscription, error) {
	all, err := importTable.list(view)
	if err != nil {
		return nil, err
	}
	next := make(map[setKey]serviceImport)
	for _, i := range all {
		if !slices.Contains(domains, i.From) {
			continue
		}
		agreement, found, err := r.agreements.With(view, i.From)
		if err != nil {
			return nil, err
		}
		if found && i.counts(agreement) {
			next[setKey{i.From, i.Name}] = i
		}
	}
	r.stale = false
	same := maps.EqualFunc(next, r.imports, func(a, b serviceImport) bool { return a.id == b.id })
	if same && !r.resend && (r.number > 0 || len(next) == 0) {
		return nil, nil
	}
	r.imports, r.confirmed, r.resend = next, false, false
	r.number++
	list := &ententev1.PeerServiceSubscription{Number: r.number}
	clear(r.announced)
	clear(r.changed)
	for _, key := range slices.SortedFunc(maps.Keys(next), compareKeys) {
		has, _, err := next[key].stored(view)
		if err != nil {
			return nil, err
		}
		r.announced[key] = has
		list.Wanted = append(list.Wanted, key.version(has))
	}
	return list, nil
}

// announceChanges acknowledges sets that were stored by other means than this stream: by another stream, whose end at
// the peer may know an older or newer state, or by a restore. The peer then sends what differs.
func (r *receiver) announceChanges(view raftstore.Reader) error {
	if len(r.changed) == 0 {
		return nil
	}
	for key, i := range r.imports {
		if _, waits := r.received[key]; waits || !r.changed[i.key()] {
			continue
		}
		has, refused, err := i.stored(view)
		switch {
		case err != nil:
			return err
		case refused || has == r.announced[key]:
			continue
		case has.none(): // which no acknowledgement can express
			r.resend = true
			continue
		}
		r.announced[key] = has
		r.ack(key, has, "")
	}
	clear(r.changed)
	return nil
}

// affect marks what changes affect, and reports whether there is any of it.
func (r *receiver) affect(c sharedChanges) bool {
	affected := c.imports
	r.stale = r.stale || c.imports
	for _, i := range r.imports {
		if c.imports || c.received[i.key()] {
			r.changed[i.key()] = true // a restore changes imports and what was received for them
			affected = true
		}
	}
	return affected
}

// confirmedDomains returns the trust domains of the subscriptions, if the peer has confirmed them.
func (r *receiver) confirmedDomains() []string {
	if !r.confirmed {
		return nil
	}
	domains := make(map[string]bool)
	for key := range r.imports {
		domains[key.domain] = true
	}
	return slices.Collect(maps.Keys(domains))
}
