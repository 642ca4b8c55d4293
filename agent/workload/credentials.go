package workload

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Credentials are the transport credentials of a gRPC server on a Unix socket. They identify the process at the other
// end of each connection, and refuse a connection whose process cannot be identified.
func Credentials() credentials.TransportCredentials { return unixCredentials{} }

type unixCredentials struct{}

// AuthInfo has the process of a connection.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Process Process
}

// AuthType implements credentials.AuthInfo.
func (AuthInfo) AuthType() string { return "unix" }

// released is a connection that owns the descriptor of its process.
type released struct {
	net.Conn
	process Process
}

// Close closes the connection. It can be called more than once.
func (c released) Close() error {
	c.process.release()
	return c.Conn.Close()
}

func (unixCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("workloads connect by a Unix socket alone")
	}
	p, err := peerOf(c)
	if err != nil {
		return nil, nil, err
	}
	info := AuthInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, Process: p,
	}
	return released{c, p}, info, nil
}

func (unixCredentials) ClientHandshake(
	context.Context, string, net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are the credentials of a server")
}

func (unixCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}

func (unixCredentials) Clone() credentials.TransportCredentials { return unixCredentials{} }

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
