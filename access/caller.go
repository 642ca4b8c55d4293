package access

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Kind says by what a caller proved who it is.
type Kind uint8

const (
	// Anonymous is the zero value: nothing was proved, and nothing is allowed.
	Anonymous Kind = iota
	// Socket is a process of this machine, connected to the admin socket: an administrator.
	Socket
	// Member is a fellow member, known by its identity key. It calls only what is served to members.
	Member
	// SVID is a holder of an X509-SVID. What it may do is a matter of grants.
	SVID
)

// Caller is who is on the other end of a connection. It is comparable.
type Caller struct {
	kind   Kind
	uid    uint32
	pid    int32
	member string
	id     spiffeid.ID
}

// SocketCaller is a process that the kernel vouches for on the admin socket.
func SocketCaller(uid uint32, pid int32) Caller { return Caller{kind: Socket, uid: uid, pid: pid} }

// MemberCaller is a member that has proved to hold its identity key.
func MemberCaller(id string) Caller { return Caller{kind: Member, member: id} }

// SVIDCaller is a caller whose X509-SVID has been verified.
func SVIDCaller(id spiffeid.ID) Caller { return Caller{kind: SVID, id: id} }

// Kind says how the caller is known.
func (c Caller) Kind() Kind { return c.kind }

// SPIFFEID is the caller's SPIFFE ID; false for callers of other kinds.
func (c Caller) SPIFFEID() (spiffeid.ID, bool) { return c.id, c.kind == SVID }

// MemberID is the fellow member's ID; false for callers of other kinds.
func (c Caller) MemberID() (string, bool) { return c.member, c.kind == Member }

// String is how the caller stands in the audit log and in refusals.
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

// Identified is what a connection's credentials.AuthInfo implements to say who is on the other end. The
// answer is fixed when the handshake ends; it is asked once a call, from many goroutines.
type Identified interface {
	AccessCaller() Caller
}

type callerKey struct{}

// WithCaller returns a context that carries the caller, for what runs on its behalf.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller that the context carries; the zero Caller, which is anonymous, if none.
func CallerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
