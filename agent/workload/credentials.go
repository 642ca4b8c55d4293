package workload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Credentials are the transport credentials of a gRPC server on a Unix socket. They identify the process at the other
// end of each connection, and refuse a connection whose process cannot be identified, or whose user has its share.
func Credentials(shares *Shares, logger hclog.Logger) credentials.TransportCredentials {
	return unixCredentials{shares, logger}
}

type unixCredentials struct {
	shares *Shares
	logger hclog.Logger
}

// AuthInfo has the process of a connection.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Process Process
}

// AuthType implements credentials.AuthInfo.
func (AuthInfo) AuthType() string { return "unix" }

// released is a connection that owns the descriptor of its process, and its place among those of its user.
type released struct {
	net.Conn
	release func()
}

// Close closes the connection. It can be called more than once.
func (c released) Close() error {
	c.release()
	return c.Conn.Close()
}

func (u unixCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("workloads connect by a Unix socket alone")
	}
	p, err := peerOf(c)
	if err != nil {
		return nil, nil, err
	}
	leave, ok := u.shares.Take(p.UID)
	if !ok {
		p.release()
		u.logger.Warn("a user has too many connections: another one is refused", "uid", p.UID, "pid", p.PID)
		return nil, nil, fmt.Errorf("user %d has as many connections as are left for all others", p.UID)
	}
	info := AuthInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, Process: p,
	}
	return released{c, sync.OnceFunc(func() { p.release(); leave() })}, info, nil
}

func (unixCredentials) ClientHandshake(
	context.Context, string, net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are the credentials of a server")
}

func (unixCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

func (u unixCredentials) Clone() credentials.TransportCredentials { return u }

func (unixCredentials) OverrideServerName(string) error { return nil }

// ProcessFrom returns the process that makes a gRPC call.
func ProcessFrom(ctx context.Context) (Process, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Process{}, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	return info.Process, ok
}
