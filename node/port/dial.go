package port

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// ErrNotAMember is wrapped by errors about dialing somebody whom the membership does not hold.
var ErrNotAMember = errors.New("not a member of this cluster as this member knows it")

// dial opens a connection to a fellow member under one of the members' protocols.
func (p *Port) dial(ctx context.Context, protocol Protocol, address, memberID string, want Identity) (*Conn, error) {
	ctx, cancel := p.deadlineOf(ctx)
	defer cancel()
	conn, err := handshake(ctx, address, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{string(protocol)},
		Certificates:           []tls.Certificate{p.identity},
		// Names and dates of identity certificates have no meaning: the key is what is compared.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection pins the key
		VerifyConnection:   expect(protocol, func(i Identity) error { return sameIdentity(memberID, address, want, i) }),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to member %s at %s under %s: %w", memberID, address, protocol, err)
	}
	c := &Conn{
		Conn:     conn,
		outgoing: true,
		dialed:   address,
		caller:   Caller{Protocol: protocol, MemberID: memberID, Identity: want, Remote: conn.RemoteAddr()},
	}
	if err := p.admit(c); err != nil {
		_ = conn.Close() // refused
		return nil, err
	}
	return c, nil
}

// ProbeIdentity proves that the holder of an identity key answers at address. It sends nothing and keeps no
// connection. The other end need not know this member: the question is put under entente-join/1.
func (p *Port) ProbeIdentity(ctx context.Context, address string, want Identity) error {
	ctx, cancel := p.deadlineOf(ctx)
	defer cancel()
	conn, err := handshake(ctx, address, joinConfig(func(i Identity) error { return sameIdentity("", address, want, i) }))
	if err != nil {
		return fmt.Errorf("check who answers at %s: %w", address, err)
	}
	return conn.Close()
}

// DialJoin opens a connection under entente-join/1 to a member of a cluster that the caller is about to
// join. accept says whether the identity key that answers is one that the caller's token names; if it is
// not, the handshake is broken off and nothing has been sent that the token holds.
func DialJoin(ctx context.Context, address string, accept func(Identity) error) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, maxDial)
	defer cancel()
	conn, err := handshake(ctx, address, joinConfig(accept))
	if err != nil {
		return nil, fmt.Errorf("connect to %s under %s: %w", address, Join, err)
	}
	return &Conn{Conn: conn, outgoing: true, dialed: address, caller: Caller{
		Protocol: Join, Identity: IdentityOf(conn.ConnectionState().PeerCertificates[0]), Remote: conn.RemoteAddr(),
	}}, nil
}

func joinConfig(accept func(Identity) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{string(Join)},
		// The member is known by its identity key alone, which accept compares.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection checks the key
		VerifyConnection:   expect(Join, accept),
	}
}

func handshake(ctx context.Context, address string, cfg *tls.Config) (*tls.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error says it
		return nil, err
	}
	return conn, nil
}

// expect checks the protocol and the identity key of the other end in every handshake.
func expect(protocol Protocol, accept func(Identity) error) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if state.NegotiatedProtocol != string(protocol) {
			return refuse(ReasonNoProtocol, fmt.Sprintf("the other end does not speak %s; is it the cluster port of an Entente member?", protocol))
		}
		identity, err := presentedIdentity(state)
		if err != nil {
			return err
		}
		return accept(identity)
	}
}

func sameIdentity(memberID, address string, want, got Identity) error {
	if got == want {
		return nil
	}
	who := "the joining member"
	if memberID != "" {
		who = "member " + memberID
	}
	return refuse(ReasonWrongIdentity, fmt.Sprintf("%s answers with identity key %x, but %s has %x", address, got[:8], who, want[:8]))
}
