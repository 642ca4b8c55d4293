package port

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/bundle/svid"
	"github.com/ententehq/entente/internal/egress"
)

// DialPeer opens a connection under h2 on a route to a member of the cluster with the home trust domain home. Both ends
// present their X509-SVIDs. The other end must be spiffe://<home>/entente/member/<id>, verified against the stored
// bundle of home. [Port.Recheck] verifies the connection again, and it ends when the SVID of the other end expires.
func (p *Port) DialPeer(
	ctx context.Context, route egress.Route, address string, home spiffeid.TrustDomain,
) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.handshakeTimeout)
	defer cancel()
	own, err := p.certificates.ServerCertificate()
	if err != nil {
		return nil, fmt.Errorf("connect to the peer %s at %s: this member has no X509-SVID now: %w",
			home.Name(), address, err)
	}
	var peer svid.Verified
	var chain []*x509.Certificate
	conn, err := handshake(ctx, route.DialContext, address, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{string(GRPC)},
		Certificates:           []tls.Certificate{*own},
		// Host names have no meaning. The SPIFFE ID is compared.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies the X509-SVID
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != string(GRPC) {
				return refuse(ReasonNoProtocol, "%s does not support %s; is it the cluster port of an Entente member?",
					address, GRPC)
			}
			verified, err := p.verifySVID(state.PeerCertificates)
			if err != nil {
				return err
			}
			member, ok := strings.CutPrefix(verified.ID.Path(), grant.MemberPath)
			if verified.ID.TrustDomain() != home || !ok || strings.Contains(member, "/") {
				return refuse(ReasonWrongIdentity, "%s is %s, and not a member of %s", address, verified.ID,
					home.Name())
			}
			peer, chain = verified, state.PeerCertificates
			return nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("connect to the peer %s at %s: %w", home.Name(), address, err)
	}
	c := &Conn{Conn: conn, outgoing: true, dialed: address, chain: chain, caller: Caller{
		Protocol: GRPC, SPIFFEID: peer.ID, Identity: IdentityOf(chain[0]), Expires: peer.Until,
		Remote: conn.RemoteAddr(),
	}}
	if err := p.admit(c); err != nil {
		_ = conn.Close() // refused
		return nil, err
	}
	// The bundle may have changed since the handshake.
	if err := p.recheck(c); err != nil {
		c.cut()
		return nil, err
	}
	return c, nil
}
