package federation

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

// PeerService serves entente.v1.PeerService: the streams that other clusters open. Whose they are is known by the verified
// X509-SVID of the caller, and checked against the relationships here.
type PeerService struct {
	ententev1.UnimplementedPeerServiceServer
	peers *peers
}

// NewPeerService serves the streams of a manager.
func NewPeerService(m *Manager) *PeerService { return &PeerService{peers: m.peers} }

// Exchange runs a stream until either side ends it.
func (p *PeerService) Exchange(call ententev1.PeerService_ExchangeServer) error {
	caller := access.CallerFrom(call.Context())
	remote, err := memberOf(caller, "")
	if err != nil {
		return p.refuse(caller, err)
	}
	id, _ := caller.SPIFFEID()
	m := p.peers.manager
	s := newStream(call.Context(), p.peers, session.New(p.peers.config.Home.Name(), m.member, id.TrustDomain().Name(), remote, false, m.now()), &servedWire{call})
	if err := p.peers.join(s); err != nil {
		return p.refuse(caller, err)
	}
	err = p.peers.keep(s)
	e, ok := errors.AsType[*session.Error](err)
	switch {
	case !ok || e.ByPeer:
		return nil
	case e.Reason == "not_a_peer" || e.Reason == "ended" || e.Reason == "suspended":
		return status.Error(codes.PermissionDenied, e.Text)
	}
	return status.Error(codes.Aborted, e.Text)
}

// refuse counts and logs a stream that was not let in.
func (p *PeerService) refuse(caller access.Caller, err error) error {
	reason := session.ReasonOf(err)
	p.peers.manager.metrics.streamsEnded.WithLabelValues(reason).Inc()
	if p.peers.refusals.AllowN(p.peers.manager.now(), 1) {
		p.peers.manager.log.Info("a stream was refused", "caller", caller.String(), "result", reason, "error", relationship.Clip(err.Error()))
	}
	if reason == "draining" || reason == "too_many_streams" {
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Error(codes.PermissionDenied, err.Error())
}

// servedWire is the end of the side that accepted the stream.
type servedWire struct {
	call ententev1.PeerService_ExchangeServer
}

func (w *servedWire) send(m *ententev1.PeerMessage) error {
	return w.call.Send(&ententev1.ExchangeResponse{Message: m})
}

func (w *servedWire) recv() (*ententev1.PeerMessage, error) {
	m, err := w.call.Recv()
	return m.GetMessage(), err
}

func (w *servedWire) finish() {} // the stream ends when its handler returns
