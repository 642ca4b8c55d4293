package client

import (
	"context"
	"net"
	"time"
)

// maxSilence is how long a member may send nothing before a client with several addresses leaves it. Members send a
// ping on every connection that is quiet for a second, so that a member that is frozen, or whose host has lost its
// power, is left within two seconds. The keepalive of gRPC waits for ten at least.
const maxSilence = 1750 * time.Millisecond

// dialTimed returns a connection that fails if the member is silent for longer than maxSilence.
func dialTimed(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return silenceConn{conn}, nil
}

// silenceConn is a connection on which a read that receives nothing for maxSilence fails.
type silenceConn struct{ net.Conn }

// Read implements net.Conn.
func (c silenceConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(maxSilence)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}
