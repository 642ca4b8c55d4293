package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/ententehq/entente/internal/egress"
)

// maxAnswer bounds the body of an answer: some hundred certificates.
const maxAnswer = 1 << 20

// MaxIdle is the number of connections that are kept for the next calls: as many as there can be signatures by Transit
// at once.
const MaxIdle = 16

// newTransport returns a transport that connects only to Vault. The CA file and the client certificate are read at each
// connection, so that a change needs no restart.
func newTransport(c Config) *http.Transport {
	dialer := &net.Dialer{Timeout: c.Timeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		// This is the dialer of plain HTTP, which a configuration can allow on loopback.
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			if !c.PlainLoopback || !egress.Loopback(host) {
				return nil, fmt.Errorf("%w: plain HTTP to %s", ErrUntrusted, address)
			}
			return dialer.DialContext(ctx, network, address)
		},
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			settings, err := tlsConfig(c, address)
			if err != nil {
				return nil, err
			}
			return (&tls.Dialer{NetDialer: dialer, Config: settings}).DialContext(ctx, network, address)
		},
		ResponseHeaderTimeout: c.Timeout, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: MaxIdle,
		MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
	}
}

func tlsConfig(c Config, address string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	settings := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if c.ServerName != "" {
		settings.ServerName = c.ServerName
	}
	if settings.RootCAs, err = c.roots(); err != nil {
		return nil, err
	}
	if auth, ok := c.Auth.(Certificate); ok {
		settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return auth.certificate()
		}
	}
	return settings, nil
}

// roots reads the CA file. It returns nil for the roots of the system.
func (c Config) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	raw, err := readFile(c.CAFile, maxRootsBytes)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%w: ca_file %s holds no certificate in PEM", ErrSecret, c.CAFile)
	}
	return pool, nil
}

// CheckFiles reads the files and variables that a connection and a login need, and names all that are not usable.
func (c Config) CheckFiles() error {
	_, err := c.roots()
	return errors.Join(err, c.Auth.checkFiles())
}

// bounded refuses answers that are too large, and stores the pauses that they demand.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	heed(response)
	if err := redirected(response); err != nil {
		_ = response.Body.Close()
		return nil, err
	}
	response.Body = &boundedBody{response.Body, maxAnswer}
	return response, nil
}

// trail is what one attempt met.
type trail struct{ redirects, status int }

// trailKey is the context key of the trail of an attempt.
type trailKey struct{}

// redirected counts redirects, of which Vault's client follows the first. To it a second one is an empty answer.
func redirected(response *http.Response) error {
	seen, ok := response.Request.Context().Value(trailKey{}).(*trail)
	if !ok {
		return nil
	}
	if seen.status = response.StatusCode; seen.status < 300 || seen.status > 399 {
		return nil
	}
	seen.redirects++
	to, err := response.Location()
	switch {
	case err != nil:
		return fmt.Errorf("%w: HTTP %d without an address", ErrRedirect, response.StatusCode)
	case seen.redirects > 1 || to.Scheme != "https" && response.Request.URL.Scheme == "https":
		return fmt.Errorf("%w: HTTP %d to %s", ErrRedirect, response.StatusCode, to.Redacted())
	}
	return nil
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}

// newAPI returns a client without a token and without settings from the environment. It follows one redirect, as a
// standby node sends to the active one: to an address whose certificate passes the same rules, and never from HTTPS to
// plain HTTP.
func newAPI(c Config, transport *http.Transport) (*api.Client, error) {
	client, err := api.NewClient(&api.Config{
		Address: c.Address, Timeout: c.Timeout,
		HttpClient: &http.Client{
			Transport:     bounded{transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make a client of Vault at %s: %w", c.Address, err)
	}
	client.SetHeaders(http.Header{api.RequestHeaderName: []string{"true"}})
	client.ClearToken()
	client.ClearNamespace()
	if c.Namespace != "" {
		client.SetNamespace(c.Namespace)
	}
	client.SetMaxRetries(0) // this package counts the attempts itself
	return client, nil
}

var errNoAnswer = errors.New("the answer is empty")
