package bundle

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

// ClientConfig says what a [Client] needs.
type ClientConfig struct {
	// Bundles verifies the SVIDs of https_spiffe endpoints. It is asked during each handshake for the bundle of the
	// endpoint's trust domain, and answers with the newest that is stored.
	Bundles x509bundle.Source
	// Timeout bounds a fetch from the first lookup of a name to the last byte, redirects included. 0 is 30 s.
	Timeout time.Duration
	// MaxDocumentBytes bounds the document. 0 is [MaxDocumentBytes], and more than that is cut down to it.
	MaxDocumentBytes int64
	// Proxy chooses an HTTP proxy for a request to an https_web endpoint, as in [http.Transport]. Nil is none: what the
	// environment names for other programs has no say in where trust comes from.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial opens connections; nil is TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Kept keeps the connection for the next fetch with the same KeptAs, which stands for an endpoint and all that its https_web certificate is
	// verified by. Nil keeps none.
	Kept   *Connections
	KeptAs string
	// Now is the time that certificates are verified at; nil is the system's.
	Now func() time.Time
}

// Client fetches bundles from endpoints. It keeps nothing from one fetch to the next: no session, no redirect, and no connection but
// as its configuration says. It is safe for concurrent use.
type Client struct{ config ClientConfig }

// NewClient makes a client.
func NewClient(c ClientConfig) *Client {
	if c.Timeout <= 0 {
		c.Timeout = defaultFetchTimeout
	}
	if c.MaxDocumentBytes <= 0 || c.MaxDocumentBytes > MaxDocumentBytes {
		c.MaxDocumentBytes = MaxDocumentBytes
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: handshakeTimeout}).DialContext
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{config: c}
}

// Result is the answer of an endpoint.
type Result struct {
	// Bundle is what the endpoint serves, or nil if NotModified.
	Bundle *Bundle
	// NotModified says that the endpoint still serves what the ETag of the request was given with.
	NotModified bool
	// Ignored are the parts of the document without effect.
	Ignored []Ignored
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
func (c *Client) Fetch(ctx context.Context, e Endpoint, etag string) (Result, error) {
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
	var r *refusal
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

func (c *Client) fetch(ctx context.Context, e Endpoint, etag string) (result Result, err error) {
	from, err := c.ask(ctx, e, e.url, etag, func(response *http.Response) error {
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
func (c *Client) ask(ctx context.Context, e Endpoint, target *url.URL, etag string, take func(*http.Response) error) (*url.URL, error) {
	over := &connection{}
	if c.config.Kept != nil {
		over = c.config.Kept.take(c.config.KeptAs, c, e)
	} else {
		over.transport = c.transport(e)
	}
	keep := false
	defer func() {
		if keep {
			c.config.Kept.give(c.config.KeptAs, over)
		} else {
			over.transport.CloseIdleConnections()
		}
	}()
	for redirects := 0; ; redirects++ {
		response, err := c.get(ctx, over.transport, target, etag)
		if err != nil {
			return nil, err
		}
		next, err := redirect(response, target)
		if err == nil && next == nil {
			err = take(response)
			_ = response.Body.Close()
			if err != nil && ctx.Err() != nil {
				// The end that this side puts to an answer can look like the answer's own end, and the document like a broken one.
				err = ctx.Err()
			}
			keep, over.state = err == nil && redirects == 0 && c.config.Kept != nil, response.TLS
			return target, err
		}
		_ = response.Body.Close()
		if err != nil {
			return nil, err
		}
		if redirects == maxRedirects {
			return nil, fmt.Errorf("%w: more than %d times, last to %s", ErrTooManyRedirects, maxRedirects, clip(next.String()))
		}
		target = next
	}
}

// transport is made for one fetch, and for one request a connection, unless [Connections] makes it keep its own. Only HTTP/1.1 is spoken.
func (c *Client) transport(e Endpoint) *http.Transport {
	config := baseTLS()
	proxy := c.config.Proxy
	config.Time = c.config.Now
	config.RootCAs = e.roots
	config.CurvePreferences = fetchCurves
	if e.profile == HTTPSSPIFFE {
		proxy = nil
		// An X509-SVID is not verified by host name but by SPIFFE ID, which VerifyConnection does for every handshake.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(state tls.ConnectionState) error { return c.verify(e, state.PeerCertificates) }
	}
	return &http.Transport{
		TLSClientConfig:        config,
		DialContext:            c.config.Dial,
		Proxy:                  proxy,
		DisableKeepAlives:      true,
		DisableCompression:     true, // and an answer that is compressed all the same is refused
		TLSHandshakeTimeout:    handshakeTimeout,
		ResponseHeaderTimeout:  answerHeaderTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
	}
}

// verify checks whom an https_spiffe endpoint proved to be.
func (c *Client) verify(e Endpoint, chain []*x509.Certificate) error {
	if c.config.Bundles == nil {
		return fmt.Errorf("%w: this client has none", ErrNoBundle)
	}
	svid, err := VerifySVID(chain, c.config.Bundles, c.config.Now())
	if err != nil {
		return err
	}
	if svid.ID != e.id {
		return fmt.Errorf("%w: it is %s, expected is %s", ErrUnexpectedEndpointID, svid.ID, e.id)
	}
	return nil
}

func (c *Client) get(ctx context.Context, transport *http.Transport, target *url.URL, etag string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrURL, clip(target.String()))
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "entente")
	if etag != "" {
		request.Header.Set("If-None-Match", etag)
	}
	return transport.RoundTrip(request)
}

// redirect returns where an answer leads to, or nil if it is not a redirect. A target keeps to the rules of the URL
// that was configured, and is reached under the same profile.
func redirect(response *http.Response, from *url.URL) (*url.URL, error) {
	switch response.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	location := response.Header.Get("Location")
	if location == "" || len(location) > MaxURLBytes {
		return nil, fmt.Errorf("%w: the answer %d has a Location of %d bytes", ErrRedirect, response.StatusCode, len(location))
	}
	next, err := from.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("%w: Location %s does not parse", ErrRedirect, clip(location))
	}
	if err := checkURL(next); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRedirect, err)
	}
	return next, nil
}

// read takes an answer that is not a redirect.
func (c *Client) read(e Endpoint, response *http.Response, asked bool) (Result, error) {
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
	b, ignored, err := Parse(e.td, body)
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
		return fmt.Errorf("%w: Content-Encoding is %s", ErrEncoded, clip(encoding))
	}
	if response.ContentLength > most {
		return fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrTooLarge, response.ContentLength, most)
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
		return nil, fmt.Errorf("%w: at most %d bytes are allowed", ErrTooLarge, most)
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
