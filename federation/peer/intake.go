package peer

import (
	"context"
	"crypto/sha256"
	"sync"

	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
)

// bundleIntake passes the bundles and statements of one stream to the [Receiver]. It is used by the receiving
// goroutine.
type bundleIntake struct {
	stream *stream
	// refused holds, by domain, the last document that was refused for good. It is not examined again.
	refused map[string]refusedDocument
}

type refusedDocument struct {
	sum     [32]byte
	refusal string
}

// receiveBundle has a bundle stored or refused, and schedules the acknowledgement. An error ends the stream.
func (b *bundleIntake) receiveBundle(m *ententev1.PeerBundle) error {
	s := b.stream
	if err := s.budget.bundles.Wait(s.ctx); err != nil {
		return err // the stream ends, and has its reason already
	}
	return s.budget.inTurn(s.ctx, func() error {
		td, sum := m.GetTrustDomain(), sha256.Sum256(m.GetDocument())
		out := Outcome{Refusal: b.refused[td].refusal, Fault: FaultPeer}
		if was, known := b.refused[td]; !known || was.sum != sum {
			out = s.streams.config.Receiver.ReceiveBundle(s.ctx, s.session.Home, td, m.GetDocument())
			switch {
			case s.ctx.Err() != nil:
				return nil //nolint:nilerr // the stream has its reason already
			case out.Unavailable:
				// The peer does not repeat a version that was refused. It sends it again on a new stream. Until then,
				// this side reads on, so that the peer receives the reason.
				s.cancel(
					session.Errorf(
						"not_stored",
						"%s cannot store the bundle of %s at the moment",
						s.session.OwnHome,
						td,
					),
				)
				return nil
			}
			delete(b.refused, td)
			if out.Final && len(b.refused) < session.MaxDomains {
				b.refused[td] = refusedDocument{sum, out.Refusal}
			}
		}
		s.mu.Lock()
		s.session.Reply(td, out.Version, out.Refusal)
		s.mu.Unlock()
		return b.count(out.Fault, "refused_bundles", "")
	})
}

// receiveStatements has statements checked. An error ends the stream.
func (b *bundleIntake) receiveStatements(m *ententev1.PeerStatements) error {
	s := b.stream
	if err := s.budget.bundles.Wait(s.ctx); err != nil {
		return err
	}
	return s.budget.inTurn(s.ctx, func() error {
		result, fault := s.streams.config.Receiver.ReceiveStatements(s.ctx, s.session.Home, m)
		if s.ctx.Err() != nil {
			return nil //nolint:nilerr // the stream has its reason already
		}
		return b.count(fault, "refused_statements", result)
	})
}

// count adds a refusal to those of the stream. It returns an error if a working peer would not cause as many.
func (b *bundleIntake) count(fault Fault, reason, result string) error {
	s := b.stream
	if fault == FaultNone || fault == FaultUnclear && s.budget.excuses.AllowN(s.streams.config.Now(), 1) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session.Refusals++
	switch {
	case s.session.Refusals <= session.MaxRefusals:
		return nil
	case result == "":
		return session.Errorf(reason, "more than %d bundles that the peer sent were refused", session.MaxRefusals)
	}
	return session.Errorf(
		reason,
		"more than %d bundles and statements that the peer sent were refused, the last ones: %s",
		session.MaxRefusals,
		result,
	)
}

// mapQueue is how many messages of hubs wait on a stream.
const mapQueue = session.MapWindow * MaxMapSubscriptions

// mapIntake stores what hubs send of their maps, in order, beside the other messages of the stream.
type mapIntake struct {
	stream *stream
	queue  chan queuedChanges

	mu sync.Mutex
	// ended is set when the queue is not read any more.
	ended bool
}

// queuedChanges is a message that waits to be stored, and what it holds of the peer's budget.
type queuedChanges struct {
	changes *ententev1.PeerMapChanges
	bytes   int64
}

// add queues a message. An error ends the stream.
func (i *mapIntake) add(m *ententev1.PeerMapChanges) error {
	s, q := i.stream, queuedChanges{changes: m}
	held := s.budget.Maps.Held
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended {
		return context.Cause(s.ctx)
	}
	if session.DomainsNamed(m) > 0 {
		if q.bytes = int64(proto.Size(m)); !held.TryAcquire(q.bytes) {
			return session.Errorf(
				"flood",
				"the map changes of the peer that wait, over all its streams, take more than %d bytes",
				MaxHeld,
			)
		}
	}
	select {
	case i.queue <- q:
		return nil
	default:
		held.Release(q.bytes)
	}
	if q.bytes > 0 {
		return session.Errorf("flood", "the peer sends its map faster than it is stored: %d messages wait", mapQueue)
	}
	return nil // it only confirms the map, and is repeated
}

// run stores the queued messages until the stream ends.
func (i *mapIntake) run() {
	s := i.stream
	held := s.budget.Maps.Held
	defer func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.ended = true
		for len(i.queue) > 0 {
			held.Release((<-i.queue).bytes)
		}
	}()
	for {
		select {
		case <-s.ctx.Done():
			return
		case q := <-i.queue:
			err := i.store(q.changes)
			held.Release(q.bytes)
			if err != nil {
				s.cancel(err)
				return
			}
		}
	}
}

// store stores one message and schedules its acknowledgement. An error ends the stream.
func (i *mapIntake) store(m *ententev1.PeerMapChanges) error {
	s, hub := i.stream, i.stream.streams.config.Hub
	if n := len(m.GetBundles()); n > 0 {
		if err := s.budget.attestations.WaitN(s.ctx, n); err != nil {
			return err
		}
	}
	if session.DomainsNamed(m) > 0 {
		err := s.budget.inTurn(s.ctx, func() error { return hub.ReceiveChanges(s.ctx, s.session.Home, m) })
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	generation, current := s.session.MapStored(m, s.streams.config.Now())
	s.mu.Unlock()
	if current && m.GetComplete() {
		hub.ConfirmMap(m.GetTrustDomain(), generation)
		s.streams.coverage.record(s.session.Home)
	}
	s.signal()
	return nil
}
