package port

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/bundle/svid"
)

// DialPeer opens a connection under h2 to a member of another cluster, whose home trust domain is home. Both ends present
// their X509-SVIDs; whoever answers must be spiffe://<home>/entente/member/<id>, verified against the bundle of home that is
// stored here. The connection is verified again by [Port.Recheck] and ends when the SVID that answered expires.
func (p *Port) DialPeer(ctx context.Context, address string, home spiffeid.TrustDomain) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.handshakeTimeout)
	defer cancel()
	own, err := p.certificates.ServerCertificate()
	if err != nil {
		return nil, fmt.Errorf("connect to the peer %s at %s: this member has no X509-SVID at the moment: %w", home.Name(), address, err)
	}
	var answered svid.Verified
	var chain []*x509.Certificate
	conn, err := handshake(ctx, address, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{string(GRPC)},
		Certificates:           []tls.Certificate{*own},
		// Host names have no meaning: the SPIFFE ID is what is compared.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies the X509-SVID
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol != string(GRPC) {
				return refuse(ReasonNoProtocol, fmt.Sprintf("%s does not speak %s; is it the cluster port of an Entente member?", address, GRPC))
			}
			verified, err := p.verifySVID(state.PeerCertificates)
			if err != nil {
				return err
			}
			if member, ok := strings.CutPrefix(verified.ID.Path(), access.MemberPath); verified.ID.TrustDomain() != home || !ok || strings.Contains(member, "/") {
				return refuse(ReasonWrongIdentity, fmt.Sprintf("%s answers as %s, and not as a member of %s", address, verified.ID, home.Name()))
			}
			answered, chain = verified, state.PeerCertificates
			return nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("connect to the peer %s at %s: %w", home.Name(), address, err)
	}
	c := &Conn{Conn: conn, outgoing: true, dialed: address, chain: chain, caller: Caller{
		Protocol: GRPC, SPIFFEID: answered.ID, Expires: answered.Until, Remote: conn.RemoteAddr(),
	}}
	if err := p.admit(c); err != nil {
		_ = conn.Close() // refused
		return nil, err
	}
	// The bundle may have changed since the handshake looked at it.
	if err := p.recheck(c); err != nil {
		c.cut()
		return nil, err
	}
	return c, nil
}
