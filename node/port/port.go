package port

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/access"
)

// Members holds the other members of the cluster. The port calls it during handshakes and rechecks, from many
// goroutines, and it must not block. It may look up an unknown member in the background, because a refused member
// connects again.
type Members interface {
	// MemberByIdentity returns the id of the present member that has this identity key.
	MemberByIdentity(identity Identity) (id string, known bool)
	// Locate returns the address of a present member, and the identity key that it must prove there.
	Locate(id string) (address string, identity Identity, known bool)
}

// Certificates is the source of the member's own X509-SVID. The port calls it in each handshake, so a renewed SVID
// applies to the next connection and leaves open ones alone.
type Certificates interface {
	// ServerCertificate returns the member's X509-SVID, or an error if it currently has no valid one.
	ServerCertificate() (*tls.Certificate, error)
}

// Config configures a [Port].
type Config struct {
	// Listener accepts TCP connections. The port owns it.
	Listener net.Listener
	// Self is the id of this member.
	Self string
	// Identity holds this member's identity key and the self-signed certificate that presents it.
	Identity     tls.Certificate
	Members      Members
	Certificates Certificates
	// Trust returns the X.509 authorities of a trust domain that is hosted, or that is foreign with an active
	// relationship and an unexpired bundle. For any other domain it returns an error with the reason why its callers
	// are not trusted. The port calls it during handshakes and rechecks, from many goroutines, and it must not block.
	Trust x509bundle.Source
	// Starting reports whether this member is starting, so that Trust is not complete. Then a connection under h2 is
	// not verified, requires no certificate, and goes to the listener of [Starting], whose server must do nothing but
	// refuse calls. It is called during handshakes and must not block. If nil, the member is never starting.
	Starting   func() bool
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	// Dial holds further options of the gRPC connections to members.
	Dial []grpc.DialOption
	// Now is the clock. If nil, it is time.Now.
	Now func() time.Time
	// HandshakeTimeout is the limit for a handshake, including the wait for the protocol's server to accept the
	// connection. If 0, it is 10 s, the longest time that gRPC clients wait when they reconnect.
	HandshakeTimeout time.Duration
	// MaxHandshakes is the limit of concurrent handshakes. If 0, it is 512.
	MaxHandshakes int
	// MaxHandshakesPerAddress is the limit for one IPv4 address, or for one /64 of IPv6, because a host can use all of
	// its addresses. A /48 has twice as many. If 0, it is 64. At a limit, a new handshake replaces one that stalls.
	MaxHandshakesPerAddress int
	// Privilege returns what is known of a caller under h2. The port calls it during handshakes and rechecks, from many
	// goroutines, and it must not block. If nil, all callers are Granted.
	Privilege func(access.Caller) Privilege
	// Refused receives samples of refused connections, at the rate of the log lines. It is called during handshakes and
	// must not block. It may be nil.
	Refused func(Sample)
	// MaxClients is the limit of open connections of callers with a grant under h2, half of which one trust domain or
	// one address may have. If 0, it is 16384.
	MaxClients int
	// MaxPerCaller is the limit for one SPIFFE ID, so no caller can exclude the others. If 0, it is a quarter of
	// MaxClients.
	MaxPerCaller int
}

const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxHandshakes    = 512
	defaultMaxPerAddress    = 64
	defaultMaxClients       = 16384
	// reservedHandshakes are the places of the hosts from which members were verified. A restarted member opens some
	// connections to each other one.
	reservedHandshakes = 64
)

// Port is a member's TLS port.
type Port struct {
	self         string
	listener     net.Listener
	identity     tls.Certificate
	members      Members
	certificates Certificates
	trust        x509bundle.Source
	dialOptions  []grpc.DialOption
	starting     func() bool
	logger       hclog.Logger
	telemetry    *telemetry
	now          func() time.Time

	handshakeTimeout time.Duration

	listeners   map[Protocol]*listener
	connections connections

	places    *places
	privilege func(access.Caller) Privilege

	mu         sync.Mutex
	clients    map[string]*grpc.ClientConn // by member id
	stopped    bool
	handshakes sync.WaitGroup
}

// New returns a port. It accepts no connection before [Port.Run].
func New(cfg Config) (*Port, error) {
	switch {
	case cfg.Listener == nil, cfg.Members == nil, cfg.Certificates == nil, cfg.Trust == nil:
		return nil, errors.New("port: Listener, Members, Certificates and Trust are required")
	case len(cfg.Identity.Certificate) == 0 || cfg.Identity.PrivateKey == nil:
		return nil, errors.New("port: the identity certificate and its key are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	l, err := newTelemetry(cfg.Logger, cfg.Registerer, cfg.Refused)
	if err != nil {
		return nil, err
	}
	maxClients := orDefault(cfg.MaxClients, defaultMaxClients)
	maxPerCaller := orDefault(cfg.MaxPerCaller, max(1, maxClients/4))
	p := &Port{
		self:             cfg.Self,
		listener:         cfg.Listener,
		identity:         cfg.Identity,
		members:          cfg.Members,
		certificates:     cfg.Certificates,
		dialOptions:      cfg.Dial,
		trust:            cfg.Trust,
		starting:         cfg.Starting,
		logger:           cfg.Logger,
		telemetry:        l,
		now:              cfg.Now,
		handshakeTimeout: orDefault(cfg.HandshakeTimeout, defaultHandshakeTimeout),
		privilege:        cfg.Privilege,
		listeners:        make(map[Protocol]*listener),
		clients:          make(map[string]*grpc.ClientConn),
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.starting == nil {
		p.starting = func() bool { return false }
	}
	if p.privilege == nil {
		p.privilege = func(access.Caller) Privilege { return Granted }
	}
	p.places = newPlaces(orDefault(cfg.MaxHandshakes, defaultMaxHandshakes),
		orDefault(cfg.MaxHandshakesPerAddress, defaultMaxPerAddress), p.now)
	p.connections = connections{
		open: make(map[*Conn]struct{}), incoming: newConnectionLimiter(maxClients, maxPerCaller, p.now),
	}
	for _, protocol := range append(slices.Clone(protocols), Starting) {
		p.listeners[protocol] = newListener(cfg.Listener.Addr())
	}
	return p, nil
}

func orDefault[T int | time.Duration](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

// Listener returns the listener for the verified connections of a protocol, or for those of [Starting]. Each accepted
// connection is a [*Conn]. Closing the listener ends that protocol only.
func (p *Port) Listener(protocol Protocol) net.Listener { return p.listeners[protocol] }

// Address returns the address that the port listens on.
func (p *Port) Address() net.Addr { return p.listener.Addr() }

// Run accepts connections until ctx ends. It then closes all connections, in and out, and waits for running handshakes.
// It returns an error only if the listener fails.
func (p *Port) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.listener.Close() }) // Accept returns the error
	defer stop()
	defer p.shutDown()
	var pause time.Duration
	for {
		raw, err := p.listener.Accept()
		if ctx.Err() != nil {
			if raw != nil {
				_ = raw.Close() // the port is stopping
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept on %s: %w", p.listener.Addr(), err)
			}
			// The likely cause is a lack of file descriptors, which ends when connections close.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			p.logger.Error("cannot accept a connection; the port retries",
				"address", p.listener.Addr(), "error", err, "in", pause)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		p.begin(ctx, raw)
	}
}

// begin starts the handshake of a connection, or refuses the connection if there are too many handshakes.
func (p *Port) begin(ctx context.Context, raw net.Conn) {
	place, err := p.places.enter(raw)
	if err != nil {
		p.telemetry.refusedFrom(raw.RemoteAddr(), "", err)
		_ = raw.Close() // refused
		return
	}
	p.handshakes.Go(func() { p.accept(ctx, raw, place) })
}

// shutDown closes all connections and waits for running handshakes.
func (p *Port) shutDown() {
	_ = p.listener.Close() // it may be closed already
	p.mu.Lock()
	p.stopped = true
	clients := p.clients
	p.clients = nil
	p.mu.Unlock()
	for _, c := range clients {
		_ = c.Close() // the port is stopping
	}
	for _, l := range p.listeners {
		_ = l.Close() // never fails
	}
	p.connections.closeAll()
	p.handshakes.Wait()
}
