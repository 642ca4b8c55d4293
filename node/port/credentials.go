package port

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials are the transport credentials of gRPC servers and clients over connections of a [Port],
// whose handshake is done and whose other end is verified. They refuse any other connection.
func Credentials() credentials.TransportCredentials { return verified{} }

type verified struct{}

var errNotOfPort = errors.New("the connection was not made by a port, so that nobody has verified its other end")

func (verified) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return verified{}.take(raw)
}

func (verified) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return verified{}.take(raw)
}

func (verified) take(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*Conn)
	if !ok {
		_ = raw.Close() // refused; nothing was sent
		return nil, nil, errNotOfPort
	}
	info := AuthInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		Caller:         c.caller,
	}
	if c.caller.Protocol == Join {
		var err error
		if info.Binding, err = c.Binding(); err != nil {
			_ = c.Close() // of no use
			return nil, nil, fmt.Errorf("derive the binding of a TLS session: %w", err)
		}
	}
	return c, info, nil
}

func (verified) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (verified) Clone() credentials.TransportCredentials { return verified{} }

func (verified) OverrideServerName(string) error { return nil }
