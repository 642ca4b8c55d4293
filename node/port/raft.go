package port

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// RaftLayer carries Raft's connections under entente-raft/1. It is the raft.StreamLayer and the
// raft.ServerAddressProvider of a raft.NetworkTransport.
//
// Raft messages do not name their receiver. If one reached the wrong server, a vote could be counted twice. The
// provider therefore puts the member's id before the address that it returns to Raft, and Dial requires that member's
// identity key there.
type RaftLayer struct {
	net.Listener
	port      *Port
	advertise net.Addr
}

// Raft returns the layer for Raft. advertise is the address at which other members reach this one.
func (p *Port) Raft(advertise string) *RaftLayer {
	return &RaftLayer{Listener: p.Listener(Raft), port: p, advertise: address(advertise)}
}

// Addr returns the advertised address, which Raft sends to other servers.
func (l *RaftLayer) Addr() net.Addr { return l.advertise }

// raftAddressSeparator separates the member and the address. It occurs in neither.
const raftAddressSeparator = "|"

// ServerAddr returns the target for Dial: the member whose identity key is required, and its address. A server id is
// the member's id, "@" and its identity.
func (l *RaftLayer) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	memberID, _, ok := strings.Cut(string(id), "@")
	if !ok {
		return "", fmt.Errorf("raft server %q: its id does not name a member and an identity", id)
	}
	if memberID == l.port.self {
		return raft.ServerAddress(l.advertise.String()), nil
	}
	address, _, known := l.port.members.Locate(memberID)
	if !known {
		return "", fmt.Errorf("raft server %s: %w", memberID, ErrNotAMember)
	}
	return raft.ServerAddress(memberID + raftAddressSeparator + address), nil
}

// Dial connects to a target that ServerAddr has returned. It refuses any other address, for which no identity key is
// known.
func (l *RaftLayer) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	memberID, address, ok := strings.Cut(string(target), raftAddressSeparator)
	if !ok {
		return nil, fmt.Errorf("connect to raft server at %s: it is %w", target, ErrNotAMember)
	}
	_, identity, known := l.port.members.Locate(memberID)
	if !known {
		return nil, fmt.Errorf("connect to raft server %s: %w", memberID, ErrNotAMember)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.port.dial(ctx, Raft, address, memberID, identity)
}

// address is an advertised host and port; the host may be a name.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }
