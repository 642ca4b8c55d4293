package peer

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// partingTime bounds the time in which a stream that has ended sends the peer the reason.
	partingTime = time.Second
	// watchInterval is how often the timeouts of a stream are checked.
	watchInterval = time.Second
)

// stream runs one session over a wire.
type stream struct {
	streams *Streams
	wire    Wire
	wake    chan struct{}
	ctx     context.Context
	cancel  context.CancelCauseFunc
	// budget and maps, which sends this cluster's map, are set when the stream joins.
	budget  *Budget
	maps    MapSender
	bundles bundleIntake
	changes mapIntake
	// payload is nil if the stream carries none. It is set before run starts the goroutines.
	payload PayloadSession

	mu      sync.Mutex
	session *session.Session
	// sending is when the message that waits to be taken was passed to the wire; zero if none waits.
	sending  time.Time
	sendings sendings
}

func newStream(ctx context.Context, p *Streams, s *session.Session, w Wire) *stream {
	ctx, cancel := context.WithCancelCause(ctx)
	stream := &stream{streams: p, wire: w, wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel, session: s,
		sendings: sendings{}}
	stream.bundles = bundleIntake{stream: stream, refused: map[string]refusedDocument{}}
	stream.changes = mapIntake{stream: stream, queue: make(chan queuedChanges, mapQueue)}
	return stream
}

// close ends the stream with a reason. If it is this side's, it is sent to the peer.
func (s *stream) close(err error) { s.cancel(err) }

// signal announces that there may be something to send.
func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run transports messages in both directions until the stream ends, and returns the reason. What still waits on the
// network ends when the caller ends the call.
func (s *stream) run() error {
	defer s.cancel(nil)
	defer s.maps.Close()
	defer s.endSendings()
	s.openPayload()
	s.streams.work.Go(s.changes.run)
	received := make(chan struct{})
	sent := make(chan struct{})
	s.streams.work.Go(func() { defer close(received); s.cancel(s.receive()) })
	s.streams.work.Go(func() { defer close(sent); s.transmit() })
	s.watch()
	<-s.ctx.Done()
	timer := time.NewTimer(partingTime)
	defer timer.Stop()
	select {
	case <-sent:
		select {
		case <-received: // the peer has read everything and has closed its side
		case <-timer.C:
		}
	case <-timer.C:
	}
	return context.Cause(s.ctx)
}

// watch checks the timeouts of the stream until it ends.
func (s *stream) watch() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
			if err := s.overdue(s.streams.config.Now()); err != nil {
				s.cancel(err)
			}
			s.signal()
		}
	}
}

func (s *stream) overdue(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.session.Overdue(now); err != nil {
		return err
	}
	if waits := now.Sub(s.sending); !s.sending.IsZero() && waits > session.SilenceTimeout {
		return session.Errorf("stalled", "the peer did not take a message for %s", waits.Round(time.Second))
	}
	return nil
}

// transmit sends what is due at every signal and at every heartbeat.
func (s *stream) transmit() {
	defer s.wire.Finish()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			s.sendReason()
			return
		case <-s.wake:
		case <-timer.C:
		}
		now := s.streams.config.Now()
		messages, wait, err := s.next(now)
		if err != nil {
			s.cancel(err)
			continue
		}
		for _, m := range messages {
			s.setSending(s.streams.config.Now())
			s.sent(m)
			if err := s.wire.Send(m); err != nil {
				if !errors.Is(err, io.EOF) { // otherwise Recv returns the reason
					s.cancel(lost(err))
				}
				return
			}
			s.streams.metrics.countMessage("out", m)
		}
		s.setSending(time.Time{})
		s.streams.coverage.record(s.session.Home)
		timer.Reset(wait)
	}
}

// next returns the messages to send now, and when to look again without a signal.
func (s *stream) next(now time.Time) ([]*ententev1.PeerMessage, time.Duration, error) {
	w := s.streams.world(s.session.Home)
	s.mu.Lock()
	messages, heartbeat := s.session.Next(w, now), s.session.NextHeartbeat
	s.mu.Unlock()
	changes, again, err := s.maps.Next(now, w.HeartbeatInterval())
	if err != nil {
		return nil, 0, err
	}
	payload, payloadAgain := s.nextPayload(now)
	wait := max(heartbeat.Sub(now), session.ShortestHeartbeat)
	for _, again := range []time.Duration{again, payloadAgain} {
		if again > 0 {
			wait = min(wait, again)
		}
	}
	return slices.Concat(messages, changes, payload), wait, nil
}

func (s *stream) setSending(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending = since
}

// sendReason sends the peer the reason for the stream's end, unless the peer ended it.
func (s *stream) sendReason() {
	e, ok := errors.AsType[*session.Error](context.Cause(s.ctx))
	if !ok || e.ByPeer {
		return
	}
	// The stream may be broken already.
	_ = s.wire.Send(&ententev1.PeerMessage{Content: &ententev1.PeerMessage_Termination{
		Termination: &ententev1.PeerTermination{Reason: e.Reason, Detail: relationship.Clip(e.Text)},
	}})
}

// receive takes over the messages of the peer until the stream ends, and returns the reason.
func (s *stream) receive() error {
	for {
		m, err := s.wire.Recv()
		if err != nil {
			return lost(err)
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		now := s.streams.config.Now()
		switch size := proto.Size(m); {
		case size > session.MaxMessage:
			return session.Errorf(
				"message_too_large",
				"the peer sent a message of %d bytes; %d are the most",
				size,
				session.MaxMessage,
			)
		case !s.budget.messages.AllowN(now, 1) || !s.budget.bytes.AllowN(now, size):
			return session.Errorf(
				"flood",
				"the peer sends more than %d messages or %d bytes a second",
				messageRate,
				byteRate,
			)
		}
		s.streams.metrics.countMessage("in", m)
		w := s.streams.world(s.session.Home)
		s.mu.Lock()
		r, err := s.session.Receive(m, w, now)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if a := m.GetAcknowledgement(); a != nil {
			s.acknowledged(a)
		}
		if isPayload(m) {
			if err := s.receivePayload(m); err != nil {
				return err
			}
		}
		if err := s.process(r, now); err != nil {
			return err
		}
		s.streams.coverage.record(s.session.Home)
		s.signal()
	}
}

// process does what a message requires beyond the session itself.
func (s *stream) process(r session.Received, now time.Time) error {
	for _, td := range r.Confirmed {
		s.streams.config.Receiver.ConfirmBundle(td)
	}
	if ahead := s.streams.config.Ahead; ahead != nil {
		for td, sequence := range r.Ahead {
			ahead(s.session.Home, td, sequence)
		}
	}
	switch {
	case r.Bundle != nil:
		return s.bundles.receiveBundle(r.Bundle)
	case r.Statements != nil:
		return s.bundles.receiveStatements(r.Statements)
	case r.MapSubscription != nil:
		return s.maps.Subscribe(r.MapSubscription, now)
	case r.MapStored != nil:
		return s.maps.Acknowledge(r.MapStored, now)
	case r.MapChanges != nil:
		return s.changes.add(r.MapChanges)
	}
	return nil
}
