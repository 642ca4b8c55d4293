package egress_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/internal/egress/proxytest"
)

func TestParseRoute(t *testing.T) {
	for text, proxied := range map[string]bool{
		"none": false, "http://proxy.example.org:3128": true, "http://[::1]:3128/": true, "http://10.0.0.1:8080": true,
	} {
		r, err := egress.ParseRoute(text)
		require.NoError(t, err)
		require.Equal(t, proxied, r.Proxied(), text)
	}
	for _, text := range []string{
		"", "proxy:3128", "https://proxy:3128", "socks5://proxy:1080", "http://proxy", "http://user:pass@proxy:3128",
		"http://proxy:3128/path", "http://proxy:3128?x", "http://proxy:3128#x", "http://:3128",
	} {
		_, err := egress.ParseRoute(text)
		require.EqualError(t, err, `it is not "none", and not the URL of an HTTP proxy; write http://HOST:PORT`, text)
	}
}

// echo returns the address of a server that sends back what it receives.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func through(t *testing.T, p *proxytest.Proxy) egress.Route {
	t.Helper()
	r, err := egress.ParseRoute(p.URL)
	require.NoError(t, err)
	return r
}

func TestRouteThroughAProxy(t *testing.T) {
	const name = "us.invalid:7443" // it resolves nowhere: only the proxy knows it
	p := proxytest.New(t, map[string]string{name: echo(t)})
	route := through(t, p)
	conn, err := route.DialContext(t.Context(), "tcp", name)
	require.NoError(t, err)
	_, err = io.WriteString(conn, "hello")
	require.NoError(t, err)
	got := make([]byte, 5)
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.NoError(t, conn.Close())
	require.Equal(t, []string{name}, p.Connected())
	require.Empty(t, p.Header().Get("Proxy-Authorization"))

	// Credentials are read at each connection.
	secret, failed := "me:first", error(nil)
	with := route.WithCredentials(func() (string, error) { return secret, failed })
	for _, want := range []string{"Basic bWU6Zmlyc3Q=", "Basic bWU6c2Vjb25k"} {
		conn, err := with.DialContext(t.Context(), "tcp", name)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.Equal(t, want, p.Header().Get("Proxy-Authorization"))
		secret = "me:second"
	}
	failed = errors.New("no such file")
	_, err = with.DialContext(t.Context(), "tcp", name)
	require.EqualError(t, err, "the egress proxy does not connect: its credentials: no such file")

	p.Refuse(http.StatusForbidden)
	_, err = route.DialContext(t.Context(), "tcp", name)
	require.ErrorIs(t, err, egress.ErrProxy)
	require.ErrorContains(t, err, "does not connect to us.invalid:7443: ")
	require.ErrorContains(t, err, "answers 403 Forbidden")
}

// TestRouteKeepsAddressesOfThisMachine: a proxy has a loopback and a link of its own, and peers name neither.
func TestRouteKeepsAddressesOfThisMachine(t *testing.T) {
	address := echo(t)
	p := proxytest.New(t, nil)
	route := through(t, p)
	conn, err := route.DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.Empty(t, p.Connected(), "an address that an operator wrote is of this machine")
}

// TestRouteBoundsTheProxy: a proxy can delay a connection for a bounded time, and send a bounded answer.
func TestRouteBoundsTheProxy(t *testing.T) {
	for name, test := range map[string]struct {
		answer string
		want   string
	}{
		"no HTTP":               {"hello\r\n\r\n", "malformed HTTP"},
		"more than its answer":  {"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01", "sends more than its answer"},
		"an endless header":     {"HTTP/1.1 200 OK\r\nX: " + string(make([]byte, 17<<10)), ""},
		"an end":                {"", "EOF"},
		"a redirect":            {"HTTP/1.1 302 Found\r\nLocation: http://other/\r\n\r\n", "answers 302 Found"},
		"an authentication":     {"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "answers 407"},
		"an answer with a body": {"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\nno route\n", "answers 502"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = c.Read(make([]byte, 1024))
				_, _ = io.WriteString(c, test.answer)
			}()
			t.Cleanup(func() { _ = l.Close(); <-done })
			route, err := egress.ParseRoute("http://" + l.Addr().String())
			require.NoError(t, err)
			_, err = route.DialContext(t.Context(), "tcp", "us.invalid:7443")
			require.ErrorIs(t, err, egress.ErrProxy)
			require.ErrorContains(t, err, test.want)
		})
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	route, err := egress.ParseRoute("http://" + silent.Addr().String())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	_, err = route.DialContext(ctx, "tcp", "us.invalid:7443")
	require.ErrorIs(t, err, context.Canceled)
}
