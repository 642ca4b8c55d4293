package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/refusal"
	"github.com/ententehq/entente/bundle/svid"
	"github.com/ententehq/entente/internal/egress"
)

// The bounds of a fetch.
const (
	defaultFetchTimeout   = 30 * time.Second
	handshakeTimeout      = 10 * time.Second
	responseHeaderTimeout = 10 * time.Second
	maxResponseHeader     = 16 << 10
	maxRedirects          = 3
	maxETagBytes          = 256
)

// keepAlive finds connections that were lost silently, and keeps idle ones in the tables of routers between, many of
// which forget a connection after four to six minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 15 * time.Second, Count: 4}

// ClientConfig is the configuration of a [Client].
type ClientConfig struct {
	// Bundles verifies the SVIDs of https_spiffe endpoints. It is called during each handshake for the bundle of the
	// endpoint's trust domain, and returns the newest that is stored.
	Bundles x509bundle.Source
	// Timeout bounds a fetch from the first lookup of a name to the last byte, redirects included. 0 is 30 s.
	Timeout time.Duration
	// MaxDocumentBytes bounds the document. 0 is [bundle.MaxDocumentBytes], which is also the maximum.
	MaxDocumentBytes int64
	// Version is the version of Bundles. While it stays the same, a kept connection is not verified again before its
	// certificate expires. 0 is an unknown version.
	Version uint64
	// Dial opens connections. If nil, TCP without a proxy is used, to no address that [egress] refuses: the
	// environment, which names proxies for other programs, must not decide where trust comes from.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Kept keeps the connection for the next fetch with the same KeptAs, which identifies an endpoint and all that its
	// https_web certificate is verified with. If nil, no connection is kept.
	Kept   *Connections
	KeptAs string
	// Now returns the time that certificates are verified at. If nil, the system's clock is used.
	Now func() time.Time
}

// Client fetches bundles from endpoints. It keeps no session and no redirect from one fetch to the next, and
// connections only as configured. It is safe for concurrent use.
type Client struct{ config ClientConfig }

// NewClient returns a client.
func NewClient(c ClientConfig) *Client {
	if c.Timeout <= 0 {
		c.Timeout = defaultFetchTimeout
	}
	if c.MaxDocumentBytes <= 0 || c.MaxDocumentBytes > bundle.MaxDocumentBytes {
		c.MaxDocumentBytes = bundle.MaxDocumentBytes
	}
	if c.Dial == nil {
		c.Dial = egress.Dialer(handshakeTimeout, keepAlive)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{config: c}
}

// Result is the result of a fetch.
type Result struct {
	// Bundle is what the endpoint serves, or nil if NotModified.
	Bundle *bundle.Bundle
	// NotModified is true if the endpoint still serves the bundle of the ETag in the request.
	NotModified bool
	// Ignored are the parts of the document without effect.
	Ignored []bundle.Ignored
	// ETag belongs into the next fetch as long as the caller has this bundle. It is empty if the endpoint gave none.
	ETag string
	// URL is the address that the document came from after redirects. It is for logs, and never the start of a later
	// fetch.
	URL string
	// Size is the length of the document in bytes.
	Size int
}

// Fetch fetches the bundle from an endpoint. If etag is not empty, the endpoint may answer that nothing changed.
//
// The error is a refusal with a [bundle.Reason], and names the endpoint. If the caller cancels the fetch, it is the
// context's error.
func (c *Client) Fetch(ctx context.Context, e Remote, etag string) (Result, error) {
	if e.url == nil {
		return Result{}, fmt.Errorf("fetch a bundle: %w", ErrEndpoint)
	}
	bounded, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	result, err := c.fetch(bounded, e, etag)
	if err != nil {
		return Result{}, fmt.Errorf("fetch bundle of %s from %s: %w", e.td, e.URL(), c.named(ctx, err))
	}
	return result, nil
}

// named adds the sentinel to an error of net/http or of the network.
func (c *Client) named(ctx context.Context, err error) error {
	var r *refusal.Error
	var timeout net.Error
	var header tls.RecordHeaderError
	var alert *net.OpError // crypto/tls has no type of its own for alerts, sent or received
	var hostname x509.HostnameError
	var certificate *tls.CertificateVerificationError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &r):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no complete answer within %s", ErrTimeout, c.config.Timeout)
	case errors.As(err, &certificate):
		if other := presentedSVID(certificate.UnverifiedCertificates); other != nil {
			return other
		}
		if errors.As(err, &hostname) {
			return fmt.Errorf("%w: %s", ErrHostName, otherHost(hostname.Certificate, hostname.Host))
		}
		return fmt.Errorf("%w: %w", ErrWebCertificate, err)
	case errors.As(err, &header) && string(header.RecordHeader[:]) == "HTTP/":
		return fmt.Errorf("%w: plain HTTP is served there: %w", ErrTLS, err)
	case errors.As(err, &header), errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error"):
		return fmt.Errorf("%w: %w", ErrTLS, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	// crypto/tls has no type for the error of a message that is too long
	case strings.HasPrefix(innermost(err).Error(), "tls: "):
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	return fmt.Errorf("%w: %w", ErrNetwork, err)
}

func innermost(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

func (c *Client) fetch(ctx context.Context, e Remote, etag string) (result Result, err error) {
	from, err := c.follow(ctx, e, http.MethodGet, e.url, etag, func(response *http.Response) error {
		result, err = c.read(e, response, etag != "")
		return err
	})
	if err != nil {
		return Result{}, err
	}
	result.URL = from.String()
	return result, nil
}

// follow follows redirects from target, calls read with the answer at their end, and returns its address.
func (c *Client) follow(
	ctx context.Context,
	e Remote,
	method string,
	target *url.URL,
	etag string,
	take func(*http.Response) error,
) (*url.URL, error) {
	for redirects := 0; ; redirects++ {
		x, err := c.send(ctx, e, method, target, etag, redirects == 0)
		if err != nil {
			return nil, err
		}
		next, err := redirect(x.Response, target)
		if err == nil && next == nil {
			err = take(x.Response)
			if err != nil && ctx.Err() != nil {
				// The cancellation of this side can look like the end of the answer, and the document like a broken
				// one.
				err = ctx.Err()
			}
			c.leave(x, err == nil && redirects == 0)
			return target, err
		}
		c.leave(x, false)
		if err != nil {
			return nil, err
		}
		if redirects == maxRedirects {
			return nil, fmt.Errorf(
				"%w: more than %d times, last to %s",
				ErrTooManyRedirects,
				maxRedirects,
				refusal.Clip(next.String()),
			)
		}
		target = next
	}
}

// send requests a document, or its header fields. It uses the kept connection of the endpoint if the URL is the
// endpoint's own, or else opens a new one. A request that is sent twice that way changes nothing at the other side.
func (c *Client) send(
	ctx context.Context,
	e Remote,
	method string,
	target *url.URL,
	etag string,
	own bool,
) (*exchange, error) {
	request, err := http.NewRequestWithContext(ctx, method, target.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrURL, refusal.Clip(target.String()))
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "entente")
	if etag != "" {
		request.Header.Set("If-None-Match", etag)
	}
	request.Close = !own || c.config.Kept == nil
	if own {
		if kept := c.kept(e); kept != nil {
			if x, err := kept.do(request, keptTimeout); !errors.Is(err, errNoResponse) {
				return x, err
			}
		}
	}
	fresh, err := c.dial(ctx, e, target)
	if err != nil {
		return nil, err
	}
	return fresh.do(request, responseHeaderTimeout)
}

// leave finishes an exchange, and keeps its connection if it can be used again.
func (c *Client) leave(x *exchange, keep bool) {
	switch again := x.finish(); {
	case !again:
	case keep && c.config.Kept != nil:
		c.config.Kept.put(c.config.KeptAs, x.over, c.config.Now())
	default:
		x.over.close()
	}
}

// verify checks the identity of an https_spiffe endpoint at a host, and returns the time until which it is valid.
func (c *Client) verify(e Remote, host string, chain []*x509.Certificate) (time.Time, error) {
	if c.config.Bundles == nil {
		return time.Time{}, fmt.Errorf("%w: this client has none", svid.ErrNoBundle)
	}
	verified, err := svid.Verify(chain, c.config.Bundles, c.config.Now())
	if errors.Is(err, svid.ErrInvalid) {
		if other := presentedWeb(chain, host, nil, c.config.Now()); other != nil {
			return time.Time{}, other
		}
	}
	if err != nil {
		return time.Time{}, err
	}
	if verified.ID != e.id {
		return time.Time{}, &UnexpectedIDError{Presented: verified.ID, Expected: e.id}
	}
	return verified.Until, nil
}

// redirect returns the target of a redirect, or nil for any other answer. A target follows the rules for configured
// URLs, and is reached under the same profile.
func redirect(response *http.Response, from *url.URL) (*url.URL, error) {
	switch response.StatusCode {
	case http.StatusMovedPermanently,
		http.StatusFound,
		http.StatusSeeOther,
		http.StatusTemporaryRedirect,
		http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	location := response.Header.Get("Location")
	if location == "" || len(location) > MaxURLBytes {
		return nil, fmt.Errorf(
			"%w: the answer %d has a Location of %d bytes",
			ErrRedirect,
			response.StatusCode,
			len(location),
		)
	}
	next, err := from.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("%w: Location %s does not parse", ErrRedirect, refusal.Clip(location))
	}
	if err := checkURL(next); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRedirect, err)
	}
	if next.Hostname() != from.Hostname() {
		if err := egress.Refusal(next.Hostname()); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRedirect, err)
		}
	}
	return next, nil
}

// read reads an answer that is not a redirect.
func (c *Client) read(e Remote, response *http.Response, conditional bool) (Result, error) {
	switch {
	case response.StatusCode == http.StatusNotModified && conditional:
		return Result{NotModified: true, ETag: responseETag(response)}, nil
	case response.StatusCode == http.StatusNotModified:
		return Result{}, ErrNotAsked
	}
	body, err := readBody(response, c.config.MaxDocumentBytes)
	if err != nil {
		return Result{}, err
	}
	b, ignored, err := bundle.Parse(e.td, body)
	if err != nil {
		return Result{}, err
	}
	return Result{Bundle: b, Ignored: ignored, ETag: responseETag(response), Size: len(body)}, nil
}

// checkAnswer checks the head of an answer: status 200, not compressed, and not larger than most.
func checkAnswer(response *http.Response, most int64) error {
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: it is %d %s", ErrStatus, response.StatusCode, http.StatusText(response.StatusCode))
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return fmt.Errorf("%w: Content-Encoding is %s", ErrEncoded, refusal.Clip(encoding))
	}
	if response.ContentLength > most {
		return fmt.Errorf(
			"%w: it has %d bytes, at most %d are allowed",
			bundle.ErrTooLarge,
			response.ContentLength,
			most,
		)
	}
	return nil
}

// readBody reads the document of an answer after [checkAnswer].
func readBody(response *http.Response, most int64) ([]byte, error) {
	if err := checkAnswer(response, most); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	if int64(len(body)) > most {
		return nil, fmt.Errorf("%w: at most %d bytes are allowed", bundle.ErrTooLarge, most)
	}
	return body, nil
}

// responseETag returns the answer's ETag if it is well formed and short enough to be sent back.
func responseETag(response *http.Response) string {
	etag := response.Header.Get("ETag")
	tag := strings.TrimPrefix(etag, "W/")
	if len(etag) > maxETagBytes || len(tag) < 2 || tag[0] != '"' || strings.IndexByte(tag[1:], '"') != len(tag)-2 {
		return ""
	}
	return etag
}
