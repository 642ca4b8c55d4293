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
)

// The bounds of a fetch.
const (
	defaultFetchTimeout = 30 * time.Second
	handshakeTimeout    = 10 * time.Second
	answerHeaderTimeout = 10 * time.Second
	maxAnswerHeader     = 16 << 10
	maxRedirects        = 3
	maxETagBytes        = 256
)

// keepAlive finds connections that were lost without a word, and has what stands between remember those that are idle,
// which many forget after four to six minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 15 * time.Second, Count: 4}

// ClientConfig says what a [Client] needs.
type ClientConfig struct {
	// Bundles verifies the SVIDs of https_spiffe endpoints. It is asked during each handshake for the bundle of the
	// endpoint's trust domain, and answers with the newest that is stored.
	Bundles x509bundle.Source
	// Timeout bounds a fetch from the first lookup of a name to the last byte, redirects included. 0 is 30 s.
	Timeout time.Duration
	// MaxDocumentBytes bounds the document. 0 is [MaxDocumentBytes], and more than that is cut down to it.
	MaxDocumentBytes int64
	// Version is that of Bundles, which changes with each of its changes. While it stays the same, a kept connection is
	// not verified again before its certificate expires. 0 says that no version is known.
	Version uint64
	// Dial opens connections; nil is TCP, without a proxy: what the environment names for other programs has no say in
	// where trust comes from.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Kept keeps the connection for the next fetch with the same KeptAs, which stands for an endpoint and all that its
	// https_web certificate is verified by. Nil keeps none.
	Kept   *Connections
	KeptAs string
	// Now is the time that certificates are verified at; nil is the system's.
	Now func() time.Time
}

// Client fetches bundles from endpoints. It keeps nothing from one fetch to the next: no session, no redirect, and no
// connection but as its configuration says. It is safe for concurrent use.
type Client struct{ config ClientConfig }

// NewClient makes a client.
func NewClient(c ClientConfig) *Client {
	if c.Timeout <= 0 {
		c.Timeout = defaultFetchTimeout
	}
	if c.MaxDocumentBytes <= 0 || c.MaxDocumentBytes > bundle.MaxDocumentBytes {
		c.MaxDocumentBytes = bundle.MaxDocumentBytes
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: handshakeTimeout, KeepAliveConfig: keepAlive}).DialContext
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{config: c}
}

// Result is the answer of an endpoint.
type Result struct {
	// Bundle is what the endpoint serves, or nil if NotModified.
	Bundle *bundle.Bundle
	// NotModified says that the endpoint still serves what the ETag of the request was given with.
	NotModified bool
	// Ignored are the parts of the document without effect.
	Ignored []bundle.Ignored
	// ETag goes into the next fetch, as long as this bundle is what the caller has; empty if the endpoint gave none.
	ETag string
	// URL is where the document came from in the end. It is for logs and never the start of a later fetch.
	URL string
	// Size is the length of the document in bytes.
	Size int
}

// Fetch gets the bundle from an endpoint. If etag is not empty, the endpoint may answer that nothing changed.
//
// The error is a refusal with a [Reason], and says which endpoint it is about. A fetch that the caller gives up
// returns the context's error.
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

// named gives an error of net/http or of the network its sentinel.
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
	case errors.As(err, &hostname):
		return fmt.Errorf("%w: %w", ErrHostName, err)
	case errors.As(err, &certificate):
		return fmt.Errorf("%w: %w", ErrWebCertificate, err)
	case errors.As(err, &header), errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error"):
		return fmt.Errorf("%w: %w", ErrTLS, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case strings.HasPrefix(innermost(err).Error(), "tls: "): // so begins what crypto/tls says without a type, of a message too long for it
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
	from, err := c.ask(ctx, e, http.MethodGet, e.url, etag, func(response *http.Response) error {
		result, err = c.read(e, response, etag != "")
		return err
	})
	if err != nil {
		return Result{}, err
	}
	result.URL = from.String()
	return result, nil
}

// ask follows redirects from target, has take read the answer at their end, and returns where that came from.
func (c *Client) ask(
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
				// The end that this side puts to an answer can look like the answer's own end, and the document like a
				// broken one.
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

// send asks for a document, or for what is said of it, over the connection that is kept for the endpoint if the URL is
// the endpoint's own and there is one, or over a new one. Whatever is asked twice that way changes nothing at the other
// side.
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
			if x, err := kept.do(request, keptPatience); !errors.Is(err, errNoAnswer) {
				return x, err
			}
		}
	}
	fresh, err := c.dial(ctx, e, target)
	if err != nil {
		return nil, err
	}
	return fresh.do(request, answerHeaderTimeout)
}

// leave finishes an exchange, and keeps its connection if that may be.
func (c *Client) leave(x *exchange, keep bool) {
	switch again := x.finish(); {
	case !again:
	case keep && c.config.Kept != nil:
		c.config.Kept.give(c.config.KeptAs, x.over, c.config.Now())
	default:
		x.over.close()
	}
}

// verify checks whom an https_spiffe endpoint proved to be, and returns until when that holds.
func (c *Client) verify(e Remote, chain []*x509.Certificate) (time.Time, error) {
	if c.config.Bundles == nil {
		return time.Time{}, fmt.Errorf("%w: this client has none", svid.ErrNoBundle)
	}
	verified, err := svid.Verify(chain, c.config.Bundles, c.config.Now())
	if err != nil {
		return time.Time{}, err
	}
	if verified.ID != e.id {
		return time.Time{}, fmt.Errorf("%w: it is %s, expected is %s", ErrUnexpectedEndpointID, verified.ID, e.id)
	}
	return verified.Until, nil
}

// redirect returns where an answer leads to, or nil if it is not a redirect. A target keeps to the rules of the URL
// that was configured, and is reached under the same profile.
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
	return next, nil
}

// read takes an answer that is not a redirect.
func (c *Client) read(e Remote, response *http.Response, asked bool) (Result, error) {
	switch {
	case response.StatusCode == http.StatusNotModified && asked:
		return Result{NotModified: true, ETag: answerETag(response)}, nil
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
	return Result{Bundle: b, Ignored: ignored, ETag: answerETag(response), Size: len(body)}, nil
}

// checkAnswer checks the head of an answer: that it is 200, not compressed, and of at most so many bytes.
func checkAnswer(response *http.Response, most int64) error {
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: it is %d %s", ErrStatus, response.StatusCode, http.StatusText(response.StatusCode))
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
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

// readBody reads the document of such an answer.
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

// answerETag returns the answer's ETag if it is well formed and short enough to be sent back.
func answerETag(response *http.Response) string {
	etag := response.Header.Get("ETag")
	tag := strings.TrimPrefix(etag, "W/")
	if len(etag) > maxETagBytes || len(tag) < 2 || tag[0] != '"' || strings.IndexByte(tag[1:], '"') != len(tag)-2 {
		return ""
	}
	return etag
}
