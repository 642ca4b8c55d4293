package endpoint_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
)

// rawPeer accepts connections and leaves the rest to serve, which owns each until it returns.
func rawPeer(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serve(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	return bundletest.LocalhostURL(listener.Addr().String(), "/")
}

// TestHostileConnection: what a peer does below and around HTTP ends within the bounds of a fetch, under a name.
func TestHostileConnection(t *testing.T) {
	ca := bundletest.NewAuthority(t, bundletest.Home)
	svid := ca.SVID(t, bundletest.EndpointID.String())
	long := *svid
	for range 1000 {
		long.Certificate = append(long.Certificate, svid.Certificate[0])
	}
	// over serves TLS with a certificate, reads the request, and calls write until the client is gone.
	over := func(config *tls.Config, write func(w io.Writer) error) func(net.Conn) {
		return func(conn net.Conn) {
			secure := tls.Server(conn, config)
			if _, err := http.ReadRequest(bufio.NewReader(secure)); err != nil || write == nil {
				return
			}
			if write(secure) == nil {
				_, _ = io.Copy(io.Discard, secure)
			}
		}
	}
	good := &tls.Config{Certificates: []tls.Certificate{*svid}} //nolint:gosec // a peer's choice
	endless := func(first, again string, pause time.Duration) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := io.WriteString(w, first)
			for err == nil {
				if pause > 0 {
					<-time.After(pause)
				}
				_, err = io.WriteString(w, again)
			}
			return err
		}
	}
	for _, test := range []struct {
		name   string
		serve  func(net.Conn)
		reason string
	}{
		{"a handshake that never ends", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }, "timeout"},
		{"no TLS", func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n{}") }, "tls"},
		{"TLS 1.1", over(&tls.Config{Certificates: good.Certificates, MinVersion: tls.VersionTLS10,
			MaxVersion: tls.VersionTLS11}, nil), "tls"},
		{"a chain of a thousand certificates",
			over(&tls.Config{Certificates: []tls.Certificate{long}}, nil), "tls"},
		{"a flood of header fields", over(good, endless("HTTP/1.1 200 OK\r\n", "X: y\r\n", 0)), "too_large"},
		{"a header a byte at a time", over(good, endless("HTTP/1.1 200 OK\r\nX: ", "x", 20*time.Millisecond)),
			"timeout"},
		{"a flood of interim answers", over(good, endless("", "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", 0)),
			"network"},
		{"chunks without end", over(good, endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			strings.Repeat("4\r\n    \r\n", 1000), 0)), "too_large"},
		{"chunks with long extensions", over(good, endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			"1;"+strings.Repeat("x", 2000)+"\r\n \r\n", 0)), "network"},
		{"a gigabyte, as announced", over(good, endless("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", "    ",
			0)), "too_large"},
		{"HTTP/2 that was not negotiated", over(good, endless("\x00\x00\x00\x04\x00\x00\x00\x00\x00",
			"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", 0)), "too_large"},
		{"a chunked body that stops", over(good, func(w io.Writer) error {
			_, err := io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
			return err
		}), "timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e, err := endpoint.NewSPIFFE(bundletest.Home, rawPeer(t, test.serve), bundletest.EndpointID)
			require.NoError(t, err)
			timeout := time.Hour // only what never ends runs into a limit
			if test.reason == "timeout" {
				timeout = 2 * time.Second
			}
			client := endpoint.NewClient(
				endpoint.ClientConfig{Bundles: bundletest.NewBundle(t, bundletest.Home, 1, ca), Timeout: timeout},
			)
			_, err = client.Fetch(t.Context(), e, "")
			require.Equal(t, test.reason, bundle.Reason(err), "%v", err)
		})
	}
}

// TestManyAddresses: a name that leads to very many silent addresses costs no more than the time of one fetch.
func TestManyAddresses(t *testing.T) {
	e, err := endpoint.NewSPIFFE(bundletest.Home, "https://many.example.org/", bundletest.EndpointID)
	require.NoError(t, err)
	client := endpoint.NewClient(endpoint.ClientConfig{
		Bundles: bundletest.NewBundle(
			t,
			bundletest.Home,
			1,
			bundletest.NewAuthority(t, bundletest.Home),
		), Timeout: 50 * time.Millisecond,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done() // as a dialer does that goes from one address to the next
			return nil, ctx.Err()
		},
	})
	_, err = client.Fetch(t.Context(), e, "")
	require.Equal(t, "timeout", bundle.Reason(err))
}
