package port

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/ententehq/entente/internal/origin"
)

// Identity is the SHA-256 of the SubjectPublicKeyInfo of a key.
type Identity = [32]byte

// IdentityOf returns the identity of the key in a certificate. It ignores all other fields.
func IdentityOf(c *x509.Certificate) Identity { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// Caller is the other end of a connection, as verified in the handshake.
type Caller struct {
	Protocol Protocol
	// MemberID is set under entente-raft/1 and entente-member/1.
	MemberID string
	// Identity is that of the key that the caller has proved: its identity key there, and under h2 that of its SVID.
	Identity Identity
	// SPIFFEID is set under h2. Expires is the end of the certificates that prove it.
	SPIFFEID spiffeid.ID
	Expires  time.Time
	// Remote is the network address of the other end.
	Remote net.Addr
}

// String returns the name of the caller in logs.
func (c Caller) String() string {
	switch {
	case c.MemberID != "":
		return "member " + c.MemberID
	case !c.SPIFFEID.IsZero():
		return c.SPIFFEID.String()
	case c.Protocol == Starting:
		return "unverified caller at " + c.Remote.String()
	}
	return "joiner at " + c.Remote.String()
}

// AuthInfo is the credentials.AuthInfo of a connection of this port.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Caller Caller
	// Binding is the binding of the connection ([Conn.Binding]) under entente-join/1.
	Binding []byte
	// conn is the connection, if it is incoming.
	conn *Conn
}

// Refused implements [access.Refusable]. It closes the connection of a caller without a grant after repeated refusals.
func (a AuthInfo) Refused() {
	if a.conn != nil {
		a.conn.refused()
	}
}

// Unread implements [access.Unreadable]. It closes the connection.
func (a AuthInfo) Unread() {
	if a.conn != nil {
		a.conn.port.drop(a.conn, ReasonUnread, "it did not read what it was sent")
	}
}

// AuthType returns the protocol under which the caller was verified.
func (a AuthInfo) AuthType() string { return string(a.Caller.Protocol) }

// Verified returns the caller. [CallerFrom] calls it, also for types that embed an AuthInfo.
func (a AuthInfo) Verified() Caller { return a.Caller }

// CallerFrom returns the verified caller of a gRPC call through a port.
func CallerFrom(ctx context.Context) (Caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, false
	}
	info, ok := p.AuthInfo.(interface{ Verified() Caller })
	if !ok {
		return Caller{}, false
	}
	return info.Verified(), true
}

// BindingFrom returns the binding of the TLS session of a gRPC call under entente-join/1.
func BindingFrom(ctx context.Context) ([]byte, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	return info.Binding, ok && len(info.Binding) > 0
}

// HostFrom returns a name for the host of a gRPC call: its IPv4 address, or the /64 of its IPv6 address.
func HostFrom(ctx context.Context) string {
	return OriginFrom(ctx).Host
}

// OriginFrom returns the origin of a gRPC call.
func OriginFrom(ctx context.Context) origin.Origin {
	c, ok := CallerFrom(ctx)
	if !ok || c.Remote == nil {
		return origin.Origin{}
	}
	return origin.Of(c.Remote)
}

// MemberFrom returns the id of the member that makes a call under entente-member/1.
func MemberFrom(ctx context.Context) (string, bool) {
	c, ok := CallerFrom(ctx)
	if !ok || c.Protocol != Member {
		return "", false
	}
	return c.MemberID, true
}
