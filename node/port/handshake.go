package port

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"time"
)

// accept runs the handshake of one incoming connection, and passes it to the listener of its protocol.
func (p *Port) accept(ctx context.Context, raw net.Conn, place *place) {
	ctx, cancel := context.WithTimeout(ctx, p.handshakeTimeout)
	defer cancel()
	a := &admission{port: p, place: place, caller: Caller{Remote: raw.RemoteAddr()}}
	conn := tls.Server(raw, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetConfigForClient:     a.configure,
	})
	err := conn.HandshakeContext(ctx)
	evicted := place.leave()
	if a.refusal != nil {
		err = a.refusal // it has more detail than the error of crypto/tls
	}
	if err == nil {
		err = p.deliver(ctx, &Conn{Conn: conn, caller: a.caller, chain: a.chain()})
	}
	if err != nil {
		switch {
		case a.refusal != nil:
		case evicted:
			err = refuse(ReasonGaveWay, "the handshake stalled, and gave way to a new one")
		case ctx.Err() == context.DeadlineExceeded:
			err = fmt.Errorf("the handshake took longer than %s: %w", p.handshakeTimeout, context.DeadlineExceeded)
		}
		p.telemetry.refusedFrom(raw.RemoteAddr(), a.caller.Protocol, err)
		_ = raw.Close() // refused
	}
}

// deliver passes a verified connection to the listener of its protocol.
func (p *Port) deliver(ctx context.Context, c *Conn) error {
	if err := p.admit(c); err != nil {
		return err
	}
	// Membership or bundles may have changed after the verification, before Recheck covered the connection.
	if err := p.recheck(c); err != nil {
		c.cut()
		return err
	}
	l := p.listeners[c.caller.Protocol]
	select {
	case l.conns <- c:
		p.telemetry.accepted.WithLabelValues(string(c.caller.Protocol)).Inc()
		return nil
	case <-l.done:
	case <-ctx.Done():
	}
	c.cut()
	return refuse(ReasonNotServed, "nothing serves %s on this member now", c.caller.Protocol)
}

// admission is the state of one handshake.
type admission struct {
	port    *Port
	place   *place
	caller  Caller
	state   tls.ConnectionState
	refusal error
}

// configure returns the TLS configuration for the protocol that the caller offers.
func (a *admission) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	a.place.greet()
	protocol, err := negotiate(hello.SupportedProtos)
	if err != nil {
		return nil, a.refuse(err)
	}
	a.caller.Protocol = protocol
	cfg := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{string(protocol)},
		VerifyConnection:       a.verify,
		// VerifyConnection verifies the chain.
		ClientAuth: tls.RequireAnyClientCert,
	}
	switch protocol {
	case GRPC:
		own, err := a.port.certificates.ServerCertificate()
		if err != nil {
			return nil, a.refuse(refuse(ReasonNoOwnSVID, "this member has no X509-SVID to serve clients with: %v", err))
		}
		cfg.Certificates = []tls.Certificate{*own}
		if a.port.starting() {
			a.caller.Protocol, cfg.ClientAuth = Starting, tls.NoClientCert
		}
	case Join:
		cfg.Certificates = []tls.Certificate{a.port.identity}
		cfg.ClientAuth = tls.NoClientCert
	default:
		cfg.Certificates = []tls.Certificate{a.port.identity}
	}
	return cfg, nil
}

// verify verifies the caller by the rules of the negotiated protocol. crypto/tls calls it in every handshake.
func (a *admission) verify(state tls.ConnectionState) error {
	a.state = state
	negotiated := a.caller.Protocol
	if negotiated == Starting {
		negotiated = GRPC
	}
	if state.NegotiatedProtocol != string(negotiated) {
		return a.refuse(refuse(ReasonNoProtocol, "the handshake negotiated %q, not %s", state.NegotiatedProtocol,
			negotiated))
	}
	switch a.caller.Protocol {
	case Join, Starting:
		return nil
	case GRPC:
		svid, err := a.port.verifySVID(state.PeerCertificates)
		if err != nil {
			return a.refuse(err)
		}
		a.caller.SPIFFEID, a.caller.Expires = svid.ID, svid.Until
		a.caller.Identity = IdentityOf(state.PeerCertificates[0])
		return nil
	}
	identity, err := presentedIdentity(state)
	if err != nil {
		return a.refuse(err)
	}
	id, known := a.port.members.MemberByIdentity(identity)
	if !known {
		if _, _, joined := a.port.members.Locate(a.port.self); !joined {
			return a.refuse(refuse(ReasonNotJoined, "this member knows no cluster that it belongs to, and so none of "+
				"its members; a leader that has admitted it connects again"))
		}
		return a.refuse(refuse(ReasonUnknownIdentity,
			"the caller's identity key %x does not belong to a member of this cluster; if the caller is a new or a "+
				"removed member, see `entente cluster members`", identity[:8]))
	}
	if id == a.port.self {
		return a.refuse(refuse(ReasonWrongIdentity,
			"the caller has this member's own identity key; was its data folder copied?"))
	}
	a.port.places.learn(id, a.caller.Remote)
	a.caller.MemberID, a.caller.Identity = id, identity
	return nil
}

// chain returns the chain of a caller under h2, for rechecks.
func (a *admission) chain() []*x509.Certificate {
	if a.caller.Protocol != GRPC {
		return nil
	}
	return a.state.PeerCertificates
}

func (a *admission) refuse(err error) error {
	a.refusal = err
	return err
}

// presentedIdentity returns the identity key that the other end has proved. Dates, names and signatures of its
// certificate have no meaning.
func presentedIdentity(state tls.ConnectionState) (Identity, error) {
	if len(state.PeerCertificates) != 1 {
		return Identity{}, refuse(ReasonWrongIdentity,
			"the other end presents %d certificates, not its one identity certificate", len(state.PeerCertificates))
	}
	return IdentityOf(state.PeerCertificates[0]), nil
}

// deadlineOf limits the time of an outgoing connection, with its handshake.
func (p *Port) deadlineOf(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(p.handshakeTimeout, maxDial))
}

// maxDial is the limit for dialling a member. Members are near each other: after this time it is better to try another.
const maxDial = 5 * time.Second
