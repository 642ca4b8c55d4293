package port

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"
)

// Credentials returns the transport credentials for gRPC servers and clients on connections of a [Port], whose
// handshake has verified the other end. They refuse any other connection.
func Credentials() credentials.TransportCredentials { return verified{} }

type verified struct{}

var errNotOfPort = errors.New("the connection does not come from a port, and its other end is not verified")

func (verified) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return verified{}.accept(raw)
}

func (verified) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return verified{}.accept(raw)
}

func (verified) accept(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*Conn)
	if !ok {
		_ = raw.Close() // refused; nothing was sent
		return nil, nil, errNotOfPort
	}
	info := AuthInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		Caller:         c.caller,
	}
	if !c.outgoing {
		info.conn = c
	}
	if c.caller.Protocol == Join {
		var err error
		if info.Binding, err = c.Binding(); err != nil {
			_ = c.Close() // the connection cannot be used
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
