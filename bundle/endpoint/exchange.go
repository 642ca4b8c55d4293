package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/svid"
)

const (
	// responseBuffer is the size of one read.
	responseBuffer = 4 << 10
	// maxInterim bounds the interim answers (1xx) before the final one.
	maxInterim = 5
	// keptTimeout is the time within which an answer has to begin on a kept connection. After that the connection
	// counts as lost, and another one is opened.
	keptTimeout = time.Second
)

// connection is an HTTP/1.1 connection to an endpoint for one request at a time. [http.Transport] has two goroutines
// and two buffers for each connection, three times the size of its TLS session; for ten thousand connections they would
// be most of a member's memory. Nothing waits on a connection of this type while it is idle: the next request shows
// whether the other side has closed it.
type connection struct {
	tls *tls.Conn
	// since is the time of opening, used that of the last use.
	since, used time.Time
	// until is the time at which its certificate, or one above it, expires. version is that of the bundles that it was
	// verified with.
	until   time.Time
	version uint64
}

func (n *connection) close() { _ = n.tls.Close() }

func (n *connection) chain() []*x509.Certificate { return n.tls.ConnectionState().PeerCertificates }

// dial opens a connection to the host of a URL, and verifies the other side under the endpoint's profile. An endpoint
// that wants post-quantum key agreement alone gets a second connection, since an offer of it costs as described at
// [fetchCurves].
func (c *Client) dial(ctx context.Context, e Remote, target *url.URL) (*connection, error) {
	n, err := c.dialWith(ctx, e, target, fetchCurves)
	var alert *net.OpError // crypto/tls has no type for alerts: 40 is a handshake_failure, 71 insufficient_security
	if errors.As(err, &alert) && alert.Op == "remote error" &&
		(strings.Contains(alert.Err.Error(), "handshake failure") ||
			strings.Contains(alert.Err.Error(), "insufficient security")) {
		return c.dialWith(ctx, e, target, hybridCurves)
	}
	return n, err
}

func (c *Client) dialWith(ctx context.Context, e Remote, target *url.URL, curves []tls.CurveID) (*connection, error) {
	host, port := target.Hostname(), target.Port()
	if net.ParseIP(host) == nil {
		ascii, err := lookupName(host)
		if err != nil {
			return nil, fmt.Errorf("%w: its host is no name: %w", ErrURL, err)
		}
		host = ascii
	}
	if port == "" {
		port = "443"
	}
	raw, err := c.config.Dial(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	n := &connection{since: c.config.Now(), version: c.config.Version}
	// The connection refers to its configuration for as long as it is kept. It must not refer to the bundles that it
	// was verified with.
	var verify func([]*x509.Certificate) (time.Time, error)
	defer func() { verify = nil }()
	config := baseTLS()
	config.Time = c.config.Now
	config.RootCAs = e.roots
	config.CurvePreferences = curves
	config.ServerName = host
	if e.profile == HTTPSSPIFFE {
		// An X509-SVID is not verified by host name but by SPIFFE ID, which VerifyConnection does for every handshake.
		config.InsecureSkipVerify = true
		verify = func(chain []*x509.Certificate) (time.Time, error) { return c.verify(e, host, chain) }
	}
	config.VerifyConnection = func(state tls.ConnectionState) (err error) {
		if verify == nil {
			n.until = svid.PathEnd(state.VerifiedChains[0]) // there is one, since the name was verified
			return nil
		}
		n.until, err = verify(state.PeerCertificates)
		return err
	}
	n.tls = tls.Client(raw, config)
	err = raw.SetDeadline(time.Now().Add(handshakeTimeout))
	if err == nil {
		err = n.tls.HandshakeContext(ctx)
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return n, nil
}

// exchange is a request with its answer.
type exchange struct {
	*http.Response
	over *connection
	body responseBody
	// buffered holds bytes that were read from the connection and are not yet part of the answer.
	buffered *bufio.Reader
	// stop ends the watch of the request's context.
	stop func() bool
}

// errNoResponse is the error of a connection that ended, or timed out, before the first byte of an answer.
var errNoResponse = errors.New("no answer came")

// do sends a request and reads the head of the answer, which has to arrive within timeout. The context also bounds the
// reading of the body. The connection belongs to the exchange until that is finished. After an error it is closed.
func (n *connection) do(request *http.Request, timeout time.Duration) (*exchange, error) {
	ctx := request.Context()
	raw := n.tls.NetConn()
	x := &exchange{over: n, stop: context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })}
	head := &io.LimitedReader{R: n.tls, N: maxResponseHeader}
	err := raw.SetDeadline(time.Now().Add(timeout))
	if err == nil {
		err = n.roundTrip(ctx, request)
	}
	if err == nil {
		x.buffered = bufio.NewReaderSize(head, responseBuffer)
		x.Response, err = readHead(x.buffered, request) //nolint:bodyclose // finish does without
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	silent := head.N == maxResponseHeader
	switch {
	case ctx.Err() != nil: // the line above may have undone what the watch did
		err = ctx.Err()
	case err == nil:
		head.N = math.MaxInt64 // from here on the reader of the body bounds it
		x.body = responseBody{x.Body, x.Body == http.NoBody}
		x.Body = &x.body
		return x, nil
	case silent:
		err = fmt.Errorf("%w: %w", errNoResponse, err)
	case head.N <= 0:
		err = fmt.Errorf("%w: the header of the answer has more than %d bytes", bundle.ErrTooLarge, maxResponseHeader)
	}
	x.stop()
	n.close()
	return nil, err
}

func (n *connection) roundTrip(ctx context.Context, request *http.Request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := request.Write(&b); err != nil {
		return err
	}
	_, err := n.tls.Write(b.Bytes())
	return err
}

// readHead reads the head of the final answer.
func readHead(r *bufio.Reader, request *http.Request) (*http.Response, error) {
	for range maxInterim {
		response, err := http.ReadResponse(r, request)
		if err != nil || response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, err
		}
	}
	return nil, fmt.Errorf("more than %d interim answers came in place of one", maxInterim-1)
}

// finish ends the exchange, and reports whether the connection can be used again. If not, it is closed.
func (x *exchange) finish() bool {
	undisturbed := x.stop()
	again := undisturbed && x.body.ended && !x.Close && x.StatusCode != http.StatusSwitchingProtocols &&
		x.buffered.Buffered() == 0
	if !again {
		x.over.close()
	}
	return again
}

// responseBody records whether a body was read to its end. Close reads nothing more: the body of a hostile answer has
// no end.
type responseBody struct {
	io.Reader
	ended bool
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

func (b *responseBody) Close() error { return nil }
