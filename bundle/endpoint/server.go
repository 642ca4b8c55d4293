package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// The bounds of a connection. A request is one line and a few fields, an answer a few kilobytes, and a map a few
// megabytes. A client that needs longer is not reading.
const (
	readHeaderTimeout  = 5 * time.Second // the TLS handshake too
	readTimeout        = 10 * time.Second
	writeTimeout       = 60 * time.Second
	idleTimeout        = 15 * time.Minute // longer than the usual time between two polls
	shutdownTimeout    = 5 * time.Second
	maxHeaderBytes     = 8 << 10
	defaultMaxConns    = 4096
	maxStreamsPerHTTP2 = 32
)

// Certificates supplies the web certificate that an endpoint presents under https_web, and keeps it up to date.
type Certificates interface {
	// Certificate is called for each handshake, from its goroutine. It returns [ErrOtherHost] for a host name that the
	// endpoint does not have.
	Certificate(ctx context.Context, serverName string) (*tls.Certificate, error)
	// Run returns when ctx ends. It is called once.
	Run(ctx context.Context) error
}

// Challenger is implemented by [Certificates] that are proved by tls-alpn-01 at the endpoint itself (RFC 8737).
type Challenger interface {
	// Challenge is called for each handshake of an ACME server, from its goroutine, and returns the certificate of the
	// challenge.
	Challenge(ctx context.Context, serverName string) (*tls.Certificate, error)
}

// ErrOtherHost is the error of a handshake for a host name that the endpoint does not have.
var ErrOtherHost = errors.New(
	"this endpoint has no certificate for that host name: it is neither in acme.hosts nor the endpoint host of a " +
		"hosted domain",
)

// SVIDSource returns the X509-SVID that the endpoint presents for td under the https_spiffe profile. It is called for
// each handshake, from its goroutine, and should return from memory. An error ends the handshake and is logged.
type SVIDSource func(ctx context.Context, td spiffeid.TrustDomain) (*tls.Certificate, error)

// ServerConfig is the configuration of a [Server].
type ServerConfig struct {
	// Listener accepts the connections. The server closes it.
	Listener net.Listener
	Handler  *Handler
	// Exactly one of these selects the profile: https_spiffe with SVIDs, or https_web with web certificates.
	SVIDs SVIDSource
	Web   Certificates
	// MaxConnections bounds the open connections, half of which can be idle. Further ones replace an idle one, or are
	// closed at once. If 0, it is 4096, or a quarter of the files that the process can have open if that is less.
	MaxConnections int
	Logger         hclog.Logger
	Registerer     prometheus.Registerer
}

// Server serves a bundle endpoint on one listener, without client certificates.
type Server struct {
	listener *limitedListener
	limiter  *connLimiter
	certs    Certificates
	http     *http.Server
	logger   hclog.Logger
	failures prometheus.Counter
}

// acmeProtocol is the ALPN protocol of the tls-alpn-01 challenge (RFC 8737).
const acmeProtocol = "acme-tls/1"

// NewServer returns a server. It accepts connections once [Server.Run] is called.
func NewServer(c ServerConfig) (*Server, error) {
	if c.Listener == nil || c.Handler == nil {
		return nil, errors.New("a bundle endpoint needs a listener and a handler")
	}
	if (c.SVIDs != nil) == (c.Web != nil) {
		return nil, errors.New(
			"a bundle endpoint has one profile: https_spiffe with SVIDs, or https_web with certificate files or with " +
				"ACME",
		)
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = min(defaultMaxConns, OpenFiles()/4)
	}
	s := &Server{logger: c.Logger, certs: c.Web}
	if c.SVIDs != nil {
		s.certs = svidCertificates{source: c.SVIDs, domainOf: c.Handler.domainOf}
	}
	s.failures = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "entente_bundle_endpoint_certificate_failures_total",
		Help: "Handshakes that failed because the endpoint had no certificate to present.",
	})
	s.limiter = newConnLimiter(c.MaxConnections)
	s.listener = &limitedListener{c.Listener, s.limiter}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_bundle_endpoint_connections",
		Help: "Connections open at the bundle endpoint.",
	}, func() float64 { return float64(s.limiter.count()) })
	if err := registerMetrics(c.Registerer, s.failures, s.limiter.refused, s.limiter.evicted, open); err != nil {
		return nil, err
	}

	config := baseTLS()
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := s.certs.Certificate(hello.Context(), hello.ServerName)
		if errors.Is(err, ErrOtherHost) {
			s.logger.Debug(
				"client requested an unknown host name at the bundle endpoint",
				"server_name",
				refusal.Clip(hello.ServerName),
			)
			return nil, err
		}
		if err != nil {
			s.failures.Inc()
			s.logger.Warn(
				"bundle endpoint has no certificate to present",
				"server_name",
				refusal.Clip(hello.ServerName),
				"error",
				err,
			)
			return nil, err
		}
		return cert, nil
	}
	s.http = &http.Server{
		Handler:           c.Handler,
		TLSConfig:         config,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         s.limiter.changed,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreamsPerHTTP2},
		Protocols:         new(http.Protocols),
		// net/http logs mistakes of clients here.
		ErrorLog: c.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(true)
	if challenger, ok := c.Web.(Challenger); ok {
		s.serveChallenges(challenger, config)
	}
	return s, nil
}

// serveChallenges lets an ACME server check that a host name leads to this endpoint: a handshake with only its protocol
// gets the certificate of the challenge, which no other client sees, and ends the connection (RFC 8737).
func (s *Server) serveChallenges(source Challenger, config *tls.Config) {
	challenge := baseTLS()
	challenge.NextProtos = []string{acmeProtocol}
	challenge.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := source.Challenge(hello.Context(), hello.ServerName)
		s.logger.Debug(
			"an ACME server looks whether a host name leads here",
			"server_name",
			refusal.Clip(hello.ServerName),
			"from",
			hello.Conn.RemoteAddr().String(),
			"error",
			err,
		)
		return cert, err
	}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmeProtocol {
			return challenge, nil
		}
		return nil, nil //nolint:nilnil // the server's own configuration
	}
	s.http.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		acmeProtocol: func(*http.Server, *tls.Conn, http.Handler) {}, // the server closes it
	}
}

// Addr returns the address of the listener.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, gives the requests under way a moment to finish, and returns once all its goroutines have
// stopped. It returns nil unless the listener broke.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var certsErr, serveErr error
	wg.Go(func() { certsErr = s.certs.Run(ctx) })
	wg.Go(func() {
		defer cancel()
		if err := s.http.ServeTLS(s.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			serveErr = fmt.Errorf("serve the bundle endpoint at %s: %w", s.Addr(), err)
		}
	})
	<-ctx.Done()
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer done()
	if err := s.http.Shutdown(grace); err != nil {
		_ = s.http.Close() // unfinished requests are cut off
	}
	_ = s.listener.Close() // in case Shutdown came before ServeTLS had taken it
	wg.Wait()
	return errors.Join(serveErr, certsErr)
}

// svidCertificates presents the SVID of the domain that a host name belongs to.
type svidCertificates struct {
	source   SVIDSource
	domainOf func(ctx context.Context, serverName string) (spiffeid.TrustDomain, error)
}

// Certificate implements [Certificates].
func (s svidCertificates) Certificate(ctx context.Context, serverName string) (*tls.Certificate, error) {
	td, err := s.domainOf(ctx, serverName)
	if err != nil {
		return nil, err
	}
	cert, err := s.source(ctx, td)
	if err == nil && cert == nil {
		err = errors.New("the source has none")
	}
	if err != nil {
		return nil, fmt.Errorf("X509-SVID of the bundle endpoint of %s: %w", td, err)
	}
	return cert, nil
}

// Run implements [Certificates].
func (s svidCertificates) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
