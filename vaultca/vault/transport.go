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
)

// maxAnswer bounds the body of an answer: some hundred certificates.
const maxAnswer = 1 << 20

// MaxIdle is the number of connections that are kept for the next calls: as many as there can be signatures by Transit
// at once.
const MaxIdle = 16

// newTransport returns a transport that connects only to Vault. The CA file and the client certificate are read at each
// connection, so that a change needs no restart.
func newTransport(c Config) *http.Transport {
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			settings, err := tlsConfig(c, address)
			if err != nil {
				return nil, err
			}
			dialer := &tls.Dialer{
				NetDialer: &net.Dialer{Timeout: c.Timeout, KeepAlive: 15 * time.Second},
				Config:    settings,
			}
			return dialer.DialContext(ctx, network, address)
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
	if c.CAFile != "" {
		raw, err := ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("%w: ca_file %s holds no certificate in PEM", ErrSecret, c.CAFile)
		}
	}
	if auth, ok := c.Auth.(Certificate); ok {
		settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return auth.certificate()
		}
	}
	return settings, nil
}

// bounded refuses answers that are too large, and stores the pauses that they demand.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	heed(response)
	response.Body = &boundedBody{response.Body, maxAnswer}
	return response, nil
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

// newAPI returns a client without a token and without settings from the environment.
func newAPI(c Config, transport *http.Transport) (*api.Client, error) {
	client, err := api.NewClient(&api.Config{
		Address: c.Address, DisableRedirects: true, Timeout: c.Timeout,
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
