package port

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/ententehq/entente/internal/egress"
)

// ErrNotAMember is the reason why a member that is not in the membership cannot be dialled.
var ErrNotAMember = errors.New("not a member of this cluster, in the state of this member")

// dial opens a connection to another member under one of the protocols for members.
func (p *Port) dial(ctx context.Context, protocol Protocol, address, memberID string, want Identity) (*Conn, error) {
	ctx, cancel := p.deadlineOf(ctx)
	defer cancel()
	conn, err := handshake(ctx, (&net.Dialer{}).DialContext, address, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{string(protocol)},
		Certificates:           []tls.Certificate{p.identity},
		// Names and dates of identity certificates have no meaning. The key is compared.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection pins the key
		VerifyConnection: expect(protocol, func(i Identity) error {
			return sameIdentity(memberID, address, want,
				i)
		}),
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

// ProbeIdentity checks that the holder of an identity key listens at address. It sends no data and keeps no connection.
// It uses entente-join/1, so the other end does not have to know this member.
func (p *Port) ProbeIdentity(ctx context.Context, address string, want Identity) error {
	ctx, cancel := p.deadlineOf(ctx)
	defer cancel()
	accept := func(i Identity) error { return sameIdentity("", address, want, i) }
	conn, err := handshake(ctx, (&net.Dialer{}).DialContext, address, joinConfig(accept))
	if err != nil {
		return fmt.Errorf("check the identity key at %s: %w", address, err)
	}
	return conn.Close()
}

// DialJoin opens a connection under entente-join/1 to a member of a cluster that the caller wants to join. accept
// returns nil if the caller's token names the identity key of the member. Otherwise the handshake ends before the
// caller sends anything.
func DialJoin(ctx context.Context, address string, accept func(Identity) error) (net.Conn, error) {
	return dialJoin(ctx, (&net.Dialer{}).DialContext, address, accept)
}

// DialInviting is [DialJoin] to a member of another cluster, which decides where its names lead: see [egress].
func DialInviting(
	ctx context.Context, route egress.Route, address string, accept func(Identity) error,
) (net.Conn, error) {
	return dialJoin(ctx, route.DialContext, address, accept)
}

// dialTCP opens a connection.
type dialTCP func(ctx context.Context, network, address string) (net.Conn, error)

func dialJoin(ctx context.Context, dial dialTCP, address string, accept func(Identity) error) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, maxDial)
	defer cancel()
	conn, err := handshake(ctx, dial, address, joinConfig(accept))
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
		// The member is identified by its identity key, which accept compares.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection checks the key
		VerifyConnection:   expect(Join, accept),
	}
}

func handshake(ctx context.Context, dial dialTCP, address string, cfg *tls.Config) (*tls.Conn, error) {
	raw, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the error of the handshake is returned
		return nil, err
	}
	return conn, nil
}

// expect returns a check of the protocol and the identity key of the other end.
func expect(protocol Protocol, accept func(Identity) error) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if state.NegotiatedProtocol != string(protocol) {
			return refuse(ReasonNoProtocol, "the other end does not support %s; is it the cluster port of an Entente "+
				"member?", protocol)
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
	name := "the joining member"
	if memberID != "" {
		name = "member " + memberID
	}
	return refuse(ReasonWrongIdentity, "%s presents identity key %x, but %s has %x", address, got[:8], name, want[:8])
}
