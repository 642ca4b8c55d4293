package peer

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

// Service serves entente.v1.PeerService: it accepts the streams that other clusters open. The cluster is identified by
// the verified X509-SVID of the caller, and checked against the relationships.
type Service struct {
	ententev1.UnimplementedPeerServiceServer
	streams *Streams
}

// NewService returns the service that accepts streams.
func NewService(s *Streams) *Service { return &Service{streams: s} }

// Exchange runs a stream until either side ends it.
func (p *Service) Exchange(call ententev1.PeerService_ExchangeServer) error {
	caller := access.CallerFrom(call.Context())
	remote, err := memberOf(caller, "")
	if err != nil {
		return p.refuse(caller, err)
	}
	id, _ := caller.SPIFFEID()
	c := p.streams.config
	s := newStream(call.Context(), p.streams,
		session.New(c.Home.Name(), c.Member(), id.TrustDomain().Name(), remote, false, c.Now()), &serverWire{call})
	if err := p.streams.join(s); err != nil {
		return p.refuse(caller, err)
	}
	err = p.streams.keep(s)
	e, ok := errors.AsType[*session.Error](err)
	switch {
	case !ok || e.ByPeer:
		return nil
	case e.Reason == "not_a_peer" || e.Reason == "ended" || e.Reason == "suspended":
		return status.Error(codes.PermissionDenied, e.Text)
	}
	return status.Error(codes.Aborted, e.Text)
}

// refuse counts and logs a stream that is not accepted.
func (p *Service) refuse(caller access.Caller, err error) error {
	reason := session.ReasonOf(err)
	p.streams.metrics.streamsEnded.WithLabelValues(reason).Inc()
	if p.streams.refusals.AllowN(p.streams.config.Now(), 1) {
		p.streams.config.Logger.Info(
			"stream refused",
			"caller",
			caller.String(),
			"result",
			reason,
			"error",
			relationship.Clip(err.Error()),
		)
	}
	if reason == "draining" || reason == "too_many_streams" {
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Error(codes.PermissionDenied, err.Error())
}

// serverWire is the end of the side that accepted the stream.
type serverWire struct {
	call ententev1.PeerService_ExchangeServer
}

func (w *serverWire) Send(m *ententev1.PeerMessage) error {
	return w.call.Send(&ententev1.ExchangeResponse{Message: m})
}

func (w *serverWire) Recv() (*ententev1.PeerMessage, error) {
	m, err := w.call.Recv()
	return m.GetMessage(), err
}

func (w *serverWire) Finish() {} // the stream ends when its handler returns
