package port

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"time"
)

// accept does the handshake of one incoming connection and hands it to its protocol's listener.
func (p *Port) accept(ctx context.Context, raw net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, p.handshakeTimeout)
	defer cancel()
	a := &admission{port: p, caller: Caller{Remote: raw.RemoteAddr()}}
	conn := tls.Server(raw, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetConfigForClient:     a.configure,
	})
	err := conn.HandshakeContext(ctx)
	if a.refusal != nil {
		err = a.refusal // says more than the alert that crypto/tls made of it
	}
	if err == nil {
		err = p.hand(ctx, &Conn{Conn: conn, caller: a.caller, chain: a.chain()})
	}
	if err != nil {
		if ctx.Err() == context.DeadlineExceeded && a.refusal == nil {
			err = fmt.Errorf("not done within %s: %w", p.handshakeTimeout, context.DeadlineExceeded)
		}
		p.ledger.refusedFrom(raw.RemoteAddr(), a.caller.Protocol, err)
		_ = raw.Close() // refused
	}
}

// hand gives a verified connection to whoever serves its protocol.
func (p *Port) hand(ctx context.Context, c *Conn) error {
	if err := p.admit(c); err != nil {
		return err
	}
	// Membership or bundles may have changed between the verification and the moment since which Recheck
	// has seen the connection.
	if err := p.recheck(c); err != nil {
		c.cut()
		return err
	}
	l := p.listeners[c.caller.Protocol]
	select {
	case l.conns <- c:
		p.ledger.accepted.WithLabelValues(string(c.caller.Protocol)).Inc()
		return nil
	case <-l.done:
	case <-ctx.Done():
	}
	c.cut()
	return refuse(ReasonNotServed, fmt.Sprintf("nothing serves %s on this member at the moment", c.caller.Protocol))
}

// admission is the state of one handshake.
type admission struct {
	port    *Port
	caller  Caller
	state   tls.ConnectionState
	refusal error
}

// configure chooses what applies to the protocol that the caller offers.
func (a *admission) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
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
		// The chain is verified by verify, in every handshake.
		ClientAuth: tls.RequireAnyClientCert,
	}
	switch protocol {
	case GRPC:
		own, err := a.port.certificates.ServerCertificate()
		if err != nil {
			return nil, a.refuse(refuse(ReasonNoOwnSVID, fmt.Sprintf("this member has no X509-SVID to serve clients with: %v", err)))
		}
		cfg.Certificates = []tls.Certificate{*own}
	case Join:
		cfg.Certificates = []tls.Certificate{a.port.identity}
		cfg.ClientAuth = tls.NoClientCert
	default:
		cfg.Certificates = []tls.Certificate{a.port.identity}
	}
	return cfg, nil
}

// verify checks the caller by the negotiated protocol. crypto/tls calls it in every handshake.
func (a *admission) verify(state tls.ConnectionState) error {
	a.state = state
	if state.NegotiatedProtocol != string(a.caller.Protocol) {
		return a.refuse(refuse(ReasonNoProtocol, fmt.Sprintf("the handshake negotiated %q, not %s", state.NegotiatedProtocol, a.caller.Protocol)))
	}
	switch a.caller.Protocol {
	case Join:
		return nil
	case GRPC:
		svid, err := a.port.verifySVID(state.PeerCertificates)
		if err != nil {
			return a.refuse(err)
		}
		a.caller.SPIFFEID, a.caller.Expires = svid.ID, svid.Until
		return nil
	}
	identity, err := presentedIdentity(state)
	if err != nil {
		return a.refuse(err)
	}
	id, known := a.port.members.MemberByIdentity(identity)
	if !known {
		return a.refuse(refuse(ReasonUnknownIdentity, fmt.Sprintf("the caller's identity key %x is not that of a member of this cluster; if it is a new or a removed one, see `entente cluster members`", identity[:8])))
	}
	if id == a.port.self {
		return a.refuse(refuse(ReasonWrongIdentity, "the caller has this member's own identity key; has its data folder been copied?"))
	}
	a.caller.MemberID, a.caller.Identity = id, identity
	return nil
}

// chain is what a caller under h2 presented, to be verified again.
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

// presentedIdentity returns the identity key that the other end has proved. Dates, names and signatures of
// the certificate around it have no meaning.
func presentedIdentity(state tls.ConnectionState) (Identity, error) {
	if len(state.PeerCertificates) != 1 {
		return Identity{}, refuse(ReasonWrongIdentity, fmt.Sprintf("the other end presents %d certificates, not its one identity certificate", len(state.PeerCertificates)))
	}
	return IdentityOf(state.PeerCertificates[0]), nil
}

// deadlineOf bounds an outgoing dial with its handshake.
func (p *Port) deadlineOf(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(p.handshakeTimeout, maxDial))
}

// maxDial bounds dialing a fellow member. Members are near each other; whoever waits longer had better try
// another one.
const maxDial = 5 * time.Second
