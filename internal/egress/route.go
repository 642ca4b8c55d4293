package egress

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

const (
	// maxProxyAnswer bounds the header of a proxy's answer.
	maxProxyAnswer = 16 << 10
	// proxyTimeout bounds the way through a proxy, from the connection to its answer.
	proxyTimeout = 10 * time.Second
	// lookupTimeout bounds the lookup of a name that a proxy is to connect to. Behind a proxy there may be no DNS.
	lookupTimeout = time.Second
	// maxProxyURL bounds the URL of a proxy.
	maxProxyURL = 512
)

// Direct is the text of a route without a proxy.
const Direct = "none"

// ErrProxy is the error of a proxy that does not connect.
var ErrProxy = errors.New("the egress proxy does not connect")

// Route is the way on which connections leave this machine: directly, which is the zero value, or through an HTTP proxy
// by CONNECT. TLS is between the two ends, so that a proxy can delay connections, and neither read nor answer them.
type Route struct {
	proxy       string // HOST:PORT
	credentials func() (string, error)
}

// ParseRoute parses [Direct], or the URL of a proxy: http://HOST:PORT. What a proxy needs as credentials is no part of
// it: see [Route.WithCredentials].
func ParseRoute(text string) (Route, error) {
	if text == Direct {
		return Route{}, nil
	}
	u, err := url.Parse(text)
	if err != nil || len(text) > maxProxyURL || u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" ||
		u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return Route{}, fmt.Errorf("it is not %q, and not the URL of an HTTP proxy; write http://HOST:PORT", Direct)
	}
	return Route{proxy: net.JoinHostPort(u.Hostname(), u.Port())}, nil
}

// WithCredentials returns the route with credentials for its proxy, by basic authentication. read returns
// USER:PASSWORD, and is called at each connection from any goroutine.
func (r Route) WithCredentials(read func() (string, error)) Route {
	r.credentials = read
	return r
}

// Proxied reports whether the route has a proxy.
func (r Route) Proxied() bool { return r.proxy != "" }

// DialContext connects to HOST:PORT. Without a proxy it is [DialContext]. With one, addresses of this machine and its
// link are still dialled directly, since the proxy has its own, and a name that resolves here to an address that a peer
// may not name is refused. Names that do not resolve here are left to the proxy, which has to refuse such addresses.
func (r Route) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if !r.Proxied() {
		return DialContext(ctx, network, address)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if a, ok := written(host); !ok {
		if err := checkName(ctx, host); err != nil {
			return nil, err
		}
	} else if Kind(a) != "" {
		return DialContext(ctx, network, address)
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", r.proxy) // an operator gave its address
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProxy, err)
	}
	if err := r.connect(ctx, conn, address); err != nil {
		_ = conn.Close() // it has carried nothing
		return nil, err
	}
	return conn, nil
}

// connect asks the proxy at the other end of conn to connect to an address.
func (r Route) connect(ctx context.Context, conn net.Conn, address string) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address,
		Header: http.Header{"User-Agent": {"entente"}}}
	if r.credentials != nil {
		text, err := r.credentials()
		if err != nil {
			return fmt.Errorf("%w: its credentials: %w", ErrProxy, err)
		}
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(text)))
	}
	if err := request.Write(conn); err != nil {
		return fmt.Errorf("%w to %s: %s: %w", ErrProxy, address, r.proxy, failure(ctx, err))
	}
	answer := bufio.NewReader(io.LimitReader(conn, maxProxyAnswer))
	response, err := http.ReadResponse(answer, request)
	if err != nil {
		return fmt.Errorf("%w to %s: the answer of %s: %w", ErrProxy, address, r.proxy, failure(ctx, err))
	}
	_ = response.Body.Close() // of an answer to CONNECT there is nothing to read
	switch {
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("%w to %s: %s answers %d %s", ErrProxy, address, r.proxy, response.StatusCode,
			http.StatusText(response.StatusCode))
	case answer.Buffered() > 0:
		return fmt.Errorf("%w to %s: %s sends more than its answer", ErrProxy, address, r.proxy)
	case !stop():
		return fmt.Errorf("%w to %s: %s: %w", ErrProxy, address, r.proxy, ctx.Err())
	}
	return nil
}

// failure returns the error of ctx if that is the cause.
func failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// checkName refuses a name that resolves to an address that a peer may not name.
func checkName(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil // only the proxy knows the name
	}
	for _, a := range found {
		if err := check(host, netip.AddrPortFrom(a, 0).String()); err != nil {
			return err
		}
	}
	return nil
}
