package federation

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// parting bounds the time in which a stream that is over tells the peer why.
	parting = time.Second
	// watchEvery is how often a stream is looked at by the clock.
	watchEvery = time.Second
)

// wire is one end of a stream, whoever opened it. Send and Recv are each called from one goroutine.
type wire interface {
	send(*ententev1.PeerMessage) error
	recv() (*ententev1.PeerMessage, error)
	// finish says that nothing more is sent.
	finish()
}

// stream runs one session over a wire.
type stream struct {
	peers  *peers
	wire   wire
	wake   chan struct{}
	ctx    context.Context
	cancel context.CancelCauseFunc
	// serving tells the peer of this cluster's map, maps are what the peer told of its own and is to be stored.
	serving *mapServing
	maps    chan queuedMap
	// pace is that of the peer. It is set when the stream joins.
	pace *peerPace

	mu      sync.Mutex
	session *session.Session
	// mapsOver says that nobody stores maps any more.
	mapsOver bool
	// sending is since when a message waits to be taken; zero: none does.
	sending time.Time
	// refused is the last document of each domain that was refused, by its hash: it need not be looked at again.
	refused map[string]refusedDocument
	// freight is what the stream carries besides bundles; nil: nothing. It is set before run starts the goroutines.
	freight Freight
}

type refusedDocument struct {
	sum    [32]byte
	reason string
}

func newStream(ctx context.Context, p *peers, s *session.Session, w wire) *stream {
	ctx, cancel := context.WithCancelCause(ctx)
	return &stream{peers: p, wire: w, wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel, session: s, refused: map[string]refusedDocument{},
		serving: newMapServing(), maps: make(chan queuedMap, mapQueue)}
}

// close ends the stream for a reason, of which the peer is told if it was ours.
func (s *stream) close(err error) { s.cancel(err) }

// signal says that there may be something to send.
func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run carries messages both ways until the stream ends, and says why it did. What still hangs in the network ends when the
// caller ends the call.
func (s *stream) run() error {
	defer s.cancel(nil)
	defer s.serving.end(s.pace)
	s.load()
	s.peers.work.Go(s.takeMaps)
	received := make(chan struct{})
	sent := make(chan struct{})
	s.peers.work.Go(func() { defer close(received); s.cancel(s.receive()) })
	s.peers.work.Go(func() { defer close(sent); s.transmit() })
	s.watch()
	<-s.ctx.Done()
	timer := time.NewTimer(parting)
	defer timer.Stop()
	select {
	case <-sent:
		select {
		case <-received: // the peer has read to the end, and gone
		case <-timer.C:
		}
	case <-timer.C:
	}
	return context.Cause(s.ctx)
}

// watch looks at the stream by the clock until it ends.
func (s *stream) watch() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
			now := s.peers.manager.now()
			s.mu.Lock()
			err := s.session.Overdue(now)
			if waits := now.Sub(s.sending); err == nil && !s.sending.IsZero() && waits > session.SilenceTimeout {
				err = session.Errorf("stalled", "the peer did not take a message for %s", waits.Round(time.Second))
			}
			s.mu.Unlock()
			if err != nil {
				s.cancel(err)
			}
			s.signal()
		}
	}
}

// transmit sends what is to be sent, at every signal and at every heartbeat.
func (s *stream) transmit() {
	defer s.wire.finish()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			s.part()
			return
		case <-s.wake:
		case <-timer.C:
		}
		now := s.peers.manager.now()
		w := s.peers.worldOf(s.session.Home)
		s.mu.Lock()
		out := s.session.Next(w, now)
		beat := s.session.NextHeartbeat
		s.mu.Unlock()
		changes, soon, err := s.serving.next(now, w.HeartbeatInterval(), s.pace, s.peers.manager.mapLog, s.peers.manager.mapEntry)
		if err != nil {
			s.cancel(err)
			continue
		}
		freight, again := s.nextFreight(now)
		if soon > 0 && (again == 0 || soon < again) {
			again = soon
		}
		for _, m := range slices.Concat(out, changes, freight) {
			s.mark(s.peers.manager.now())
			if err := s.wire.send(m); err != nil {
				if !errors.Is(err, io.EOF) { // then the end has a reason, which recv returns
					s.cancel(lost(err))
				}
				return
			}
			s.peers.manager.metrics.peerMessage("out", m)
		}
		s.mark(time.Time{})
		s.peers.noted(s.session.Home)
		wait := max(beat.Sub(now), session.ShortestHeartbeat)
		if again > 0 {
			wait = min(wait, again)
		}
		timer.Reset(wait)
	}
}

func (s *stream) mark(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sending = since
}

// part tells the peer why the stream ends, where that was not its own decision.
func (s *stream) part() {
	e, ok := errors.AsType[*session.Error](context.Cause(s.ctx))
	if !ok || e.ByPeer {
		return
	}
	// The stream may be gone already.
	_ = s.wire.send(&ententev1.PeerMessage{Content: &ententev1.PeerMessage_Goodbye{Goodbye: &ententev1.PeerGoodbye{Reason: e.Reason, Detail: relationship.Clip(e.Text)}}})
}

// receive takes in what comes until the stream ends, and says why.
func (s *stream) receive() error {
	for {
		m, err := s.wire.recv()
		if err != nil {
			return lost(err)
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx) // it has a reason already
		}
		now := s.peers.manager.now()
		size := proto.Size(m)
		switch {
		case size > session.MaxMessage:
			return session.Errorf("message_too_large", "the peer sent a message of %d bytes; %d are the most", size, session.MaxMessage)
		case !s.pace.messages.AllowN(now, 1) || !s.pace.bytes.AllowN(now, size):
			return session.Errorf("flood", "the peer sends more than %d messages or %d bytes a second", messageRate, byteRate)
		}
		s.peers.manager.metrics.peerMessage("in", m)
		w := s.peers.worldOf(s.session.Home)
		s.mu.Lock()
		t, err := s.session.Receive(m, w, now)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if isFreight(m) {
			if err := s.takeFreight(m); err != nil {
				return err
			}
		}
		for _, td := range t.Confirmed {
			s.peers.manager.confirm(td)
		}
		if t.Bundle != nil {
			if err := s.pace.bundles.Wait(s.ctx); err != nil {
				return err // the stream ends, and has its reason already
			}
			if err := s.pace.inTurn(s.ctx, func() error { s.takeBundle(t.Bundle); return nil }); err != nil {
				return err
			}
			if s.tooMuchRefused() {
				return session.Errorf("refused_bundles", "more than %d bundles that the peer brought were refused", session.MaxRefusals)
			}
		}
		if t.MapInterest != nil {
			if err := s.serving.take(t.MapInterest, s.pace, s.peers.manager.mapLog, now); err != nil {
				return err
			}
		}
		if t.MapStored != nil {
			if err := s.serving.taken(t.MapStored, now); err != nil {
				return err
			}
		}
		if t.MapChanges != nil {
			if err := s.queueMap(t.MapChanges); err != nil {
				return err
			}
		}
		if t.Statements != nil {
			if err := s.pace.bundles.Wait(s.ctx); err != nil {
				return err
			}
			if err := s.pace.inTurn(s.ctx, func() error { return s.takeStatements(t.Statements) }); err != nil {
				return err
			}
		}
		s.peers.noted(s.session.Home)
		s.signal()
	}
}

// tooMuchRefused reports whether the peer brought more bundles and statements that were refused than one in good order would.
func (s *stream) tooMuchRefused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session.Refusals > session.MaxRefusals
}

// takeBundle stores what the peer brought, or refuses it, and answers.
func (s *stream) takeBundle(m *ententev1.PeerBundle) {
	td, sum := m.GetTrustDomain(), sha256.Sum256(m.GetDocument())
	before, again := s.refused[td]
	var v relationship.Version
	refusal := before.reason
	if !again || before.sum != sum {
		var out intake.Outcome
		v, out = s.peers.manager.receive(s.ctx, s.session.Home, td, m.GetDocument())
		if s.ctx.Err() != nil {
			return
		}
		if out.Local() {
			// It is no fault of the peer's, which would not bring a refused version again: it does when the stream is opened anew.
			s.cancel(session.Errorf("not_stored", "%s cannot store the bundle of %s at the moment", s.session.OwnHome, td))
			return
		}
		delete(s.refused, td)
		if refusal = ""; out.Err != nil {
			refusal = out.Result
			if relationship.IsDecision(out.Result) && out.Result != relationship.ReasonNotWanted && len(s.refused) < session.MaxDomains {
				s.refused[td] = refusedDocument{sum, refusal}
			}
		}
	}
	forgiven := refusal == "" || refusal == relationship.ReasonNotWanted && s.pace.excuses.AllowN(s.peers.manager.now(), 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session.Reply(td, v, refusal)
	if !forgiven {
		s.session.Refusals++
	}
}

// lost says how a stream broke. What the other side says when it refuses one is its reason, and anything else the network's.
func lost(err error) error {
	if errors.Is(err, io.EOF) {
		return &session.Error{Reason: "lost", Text: "the peer ended the stream without a word", ByPeer: true}
	}
	reason := "lost"
	switch s := status.Convert(err); s.Code() {
	case codes.PermissionDenied, codes.Unauthenticated:
		reason = "refused"
	case codes.ResourceExhausted:
		reason = "message_too_large"
	case codes.Unimplemented:
		reason = "unimplemented"
	case codes.Internal, codes.InvalidArgument:
		reason = "malformed"
	}
	return &session.Error{Reason: reason, Text: relationship.Clip(status.Convert(err).Message()), ByPeer: reason != "malformed" && reason != "message_too_large"}
}
