package egress

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKind(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1": "", "192.0.2.1": "", "2001:db8::1": "", "fd00::1": "",
		"127.0.0.1": "loopback", "127.9.9.9": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
		"169.254.169.254": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local",
		"::ffff:169.254.169.254": "link-local", "64:ff9b::a9fe:a9fe": "link-local",
		"fd00:ec2::254": "metadata service", "100.100.100.200": "metadata service", "168.63.129.16": "metadata service",
		"224.0.0.1": "multicast", "ff02::1": "multicast", "0.0.0.0": "unspecified", "0.1.2.3": "unspecified",
		"::": "unspecified",
	} {
		require.Equal(t, want, Kind(netip.MustParseAddr(text)), text)
	}
}

func TestRefusal(t *testing.T) {
	for _, host := range []string{"us.example.org", "10.0.0.1", "2001:db8::1", "127.0.0.1.example.org"} {
		require.NoError(t, Refusal(host), host)
	}
	for _, host := range []string{"localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "[::1]", "169.254.169.254"} {
		require.ErrorIs(t, Refusal(host), ErrAddress, host)
	}
	require.EqualError(t, Refusal("169.254.169.254"),
		"address not allowed: 169.254.169.254 is a link-local address, which only an operator can give")
}

// A name is checked by what it resolves to, in whatever form the resolver returns it. What is written as an address is
// dialled.
func TestDial(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		conn, err := DialContext(t.Context(), "tcp4", net.JoinHostPort(host, port))
		require.NoError(t, err, host)
		require.NoError(t, conn.Close())
	}
	// A resolver that a peer controls: every name is 127.0.0.1.
	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go answerLoopback(server)
		return client, nil
	}}
	_, err = Dial(t.Context(), &net.Dialer{Resolver: resolver}, "tcp4", net.JoinHostPort("us.example.org", port))
	require.ErrorIs(t, err, ErrAddress)
	require.ErrorContains(t, err, "us.example.org resolves to 127.0.0.1, a loopback address; if that is intended, an "+
		"operator gives the address instead of the name")
}

// answerLoopback answers one DNS query over a stream with the address 127.0.0.1.
func answerLoopback(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 512)
	n, err := conn.Read(buffer)
	if err != nil || n < 14 {
		return
	}
	query := buffer[2:n] // after the length
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5
	answer := append([]byte{}, query[:end]...)
	answer[2], answer[3] = 0x81, 0x80 // a response, recursion available
	answer[7] = 1                     // one answer
	copy(answer[8:12], make([]byte, 4))
	answer = append(answer, 0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
	_, _ = conn.Write(append([]byte{byte(len(answer) >> 8), byte(len(answer))}, answer...))
}
