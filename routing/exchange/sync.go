package exchange

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	// holdBack is how long a stream waits that would exceed the rate of what it sends.
	holdBack = 50 * time.Millisecond
	// retryStore is how long a batch waits that could not be stored because there was no leader.
	retryStore = time.Second
)

// Stream is a stream to another cluster. The [Sync] uses it from any goroutine.
type Stream struct {
	// Home is the verified home trust domain of the peer.
	Home string
	// Domains returns, in order, the foreign trust domains whose relationships are in force and name the peer.
	Domains func() []string
	// Wake announces that [Sync.Next] has something to send. It must not block.
	Wake func()
}

// syncParts is what all syncs of a member use.
type syncParts struct {
	store       *raftstore.Store
	agreements  Agreements
	sets        *exportedSets
	outcomes    *Outcomes
	writer      *importWriter
	metrics     *metrics
	lastContact func() time.Time
	now         func() time.Time
	log         hclog.Logger
}

// Sync is the service sync of one stream: it sends the sets that the peer imports, and receives those that are imported
// from it. The owner of the stream passes received messages to Receive, sends what Next returns, and calls Run until
// the stream ends. [Exchange.NewSync] makes it.
type Sync struct {
	syncParts
	syncs  *syncs
	stream Stream

	mu      sync.Mutex
	domains []string
	sender  sender
	// receiver stores what it received in Run, outside of the lock.
	receiver receiver
}

func newSync(parts syncParts, all *syncs, stream Stream) *Sync {
	return &Sync{
		syncParts: parts, syncs: all, stream: stream,
		sender: newSender(parts, stream.Home), receiver: newReceiver(parts),
	}
}

// Receive takes over a message of the peer. It does not block. Its error ends the stream.
func (s *Sync) Receive(m *ententev1.PeerMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c := m.GetContent().(type) {
	case *ententev1.PeerMessage_Services:
		for _, a := range c.Services.GetAcknowledgements() {
			if err := s.sender.acknowledge(a); err != nil {
				return err
			}
		}
		if c.Services.GetSubscription() != nil {
			return s.sender.subscribe(c.Services.GetSubscription())
		}
	case *ententev1.PeerMessage_ServiceSets:
		for _, part := range c.ServiceSets.GetSets() {
			if err := s.receiver.receivePart(part); err != nil {
				return err
			}
		}
		if n := c.ServiceSets.GetConfirmed(); n != 0 && n == s.receiver.number {
			s.receiver.confirmed = true
		}
	}
	return nil
}

// Next returns the messages to send now, in order, and counts them as sent. If again is positive, Next is to be called
// after that time even without a wake.
func (s *Sync) Next(now time.Time) (messages []*ententev1.PeerMessage, again time.Duration) {
	domains := s.stream.Domains()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(domains, s.domains) {
		s.domains, s.receiver.stale = domains, true
		s.sender.affectAll()
	}
	view := s.store.View()
	messages, wait := s.receiver.next(view, domains, now)
	sets, again := s.sender.next(view, domains, now)
	for _, m := range sets {
		messages = append(messages, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_ServiceSets{ServiceSets: m}})
	}
	if wait > 0 && (again == 0 || wait < again) {
		again = wait
	}
	return messages, again
}

// Run stores the received sets until ctx ends, which is when the stream ends.
func (s *Sync) Run(ctx context.Context) {
	defer s.syncs.remove(s)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.receiver.work:
		}
		for {
			batch := s.batch()
			if len(batch) == 0 {
				break
			}
			if s.syncs.limitOf(s.stream.Home).wait(ctx, batch) != nil || !s.storeBatch(ctx, batch) {
				return
			}
		}
	}
}

func (s *Sync) batch() []receivedSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.receiver.batch()
}

// storeBatch stores received sets and acknowledges them. It returns false if the stream has ended.
func (s *Sync) storeBatch(ctx context.Context, batch []receivedSet) bool {
	outcomes, err := s.writer.write(ctx, s.stream.Home, batch)
	if ctx.Err() != nil {
		return false
	}
	if err == nil {
		s.mu.Lock()
		s.receiver.stored(batch, outcomes)
		s.mu.Unlock()
		s.stream.Wake()
		return true
	}
	// The peer is not to blame.
	level := s.log.Warn
	if errors.Is(err, raftstore.ErrBusy) {
		level = s.log.Debug
	}
	level("cannot store imported instances at the moment; retrying", "peer", s.stream.Home, "error", err)
	s.mu.Lock()
	s.receiver.putBack(batch)
	s.mu.Unlock()
	retry := time.NewTimer(retryStore)
	defer retry.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-retry.C:
		return true
	}
}

// affect marks what changes affect, and reports whether there is any of it on this stream.
func (s *Sync) affect(c sharedChanges) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	received := s.receiver.affect(c)
	return s.sender.affect(c) || received
}

// confirmedDomains returns the trust domains whose imports this stream confirms.
func (s *Sync) confirmedDomains() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.receiver.confirmedDomains()
}
