package access

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Kind is the way in which a caller was identified.
type Kind uint8

const (
	// Anonymous is the zero value: a caller that was not identified and may call nothing.
	Anonymous Kind = iota
	// Socket is a process on this machine that is connected to the admin socket. It is an administrator.
	Socket
	// Member is another member of the cluster, identified by its identity key. It may call the services for members
	// only.
	Member
	// SVID is the holder of an X509-SVID. Its grants decide what it may call.
	SVID
)

// Caller identifies the other end of a connection. It is comparable.
type Caller struct {
	kind   Kind
	uid    uint32
	pid    int32
	member string
	id     spiffeid.ID
	key    [32]byte
}

// SocketCaller returns the caller for a process that the kernel has identified on the admin socket.
func SocketCaller(uid uint32, pid int32) Caller { return Caller{kind: Socket, uid: uid, pid: pid} }

// MemberCaller returns the caller for a member that has proved possession of its identity key.
func MemberCaller(id string) Caller { return Caller{kind: Member, member: id} }

// SVIDCaller returns the caller for the holder of a verified X509-SVID.
func SVIDCaller(id spiffeid.ID) Caller { return Caller{kind: SVID, id: id} }

// WithKey returns the caller with the SHA-256 of the SubjectPublicKeyInfo of its X509-SVID. An agent is known by both.
func (c Caller) WithKey(digest [32]byte) Caller {
	c.key = digest
	return c
}

// known returns the caller without what changes from one of its connections or certificates to the next.
func (c Caller) known() Caller {
	c.pid, c.key = 0, [32]byte{}
	return c
}

// Kind returns the way in which the caller was identified.
func (c Caller) Kind() Kind { return c.kind }

// SPIFFEID returns the caller's SPIFFE ID, and false if the caller is not of the kind SVID.
func (c Caller) SPIFFEID() (spiffeid.ID, bool) { return c.id, c.kind == SVID }

// MemberID returns the member's ID, and false if the caller is not of the kind Member.
func (c Caller) MemberID() (string, bool) { return c.member, c.kind == Member }

// account returns who the caller is over several connections: as String, without the process.
func (c Caller) account() string {
	if c.kind == Socket {
		return fmt.Sprintf("admin socket (uid %d)", c.uid)
	}
	return c.String()
}

// String returns the form that audit lines and refusals use.
func (c Caller) String() string {
	switch c.kind {
	case Socket:
		return fmt.Sprintf("admin socket (uid %d, pid %d)", c.uid, c.pid)
	case Member:
		return "member " + c.member
	case SVID:
		return c.id.String()
	default:
		return "anonymous"
	}
}

// Identified is implemented by the credentials.AuthInfo of a connection and returns its caller. The caller is fixed
// when the handshake ends. The guard calls AccessCaller once a call, from many goroutines.
type Identified interface {
	AccessCaller() Caller
}

type callerKey struct{}

// WithCaller returns a context that carries the caller on whose behalf something runs.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller that the context carries, or the zero Caller, which is anonymous.
func CallerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
