package port

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
)

// Members knows the fellow members of this one. It is asked during handshakes and rechecks, from many
// goroutines, and must not block; who turns out to be unknown may be looked up meanwhile, since a fellow
// member that was refused comes again.
type Members interface {
	// MemberByIdentity returns the id of the present member that has this identity key.
	MemberByIdentity(identity Identity) (id string, known bool)
	// Locate returns where a present member is reached, and the identity key that must answer there.
	Locate(id string) (address string, identity Identity, known bool)
}

// Certificates is where the member's own X509-SVID comes from. It is asked at each handshake, so that a
// renewal reaches the next caller and disturbs no open connection.
type Certificates interface {
	// ServerCertificate returns the member's X509-SVID, or an error if it has no valid one at the moment.
	ServerCertificate() (*tls.Certificate, error)
}

// Config is what a port needs.
type Config struct {
	// Listener takes in TCP connections. The port owns it.
	Listener net.Listener
	// Self is the id of this member.
	Self string
	// Identity holds this member's identity key and the self-signed certificate that presents it.
	Identity     tls.Certificate
	Members      Members
	Certificates Certificates
	// Trust says which X.509 authorities speak for a trust domain: a hosted one, or a foreign one whose relationship is
	// active and whose bundle has not expired. For any other it returns an error that says why its callers are not
	// trusted. It is asked during handshakes and rechecks, from many goroutines, and must not block.
	Trust      x509bundle.Source
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// HandshakeTimeout bounds a handshake, and the wait for the protocol's server to take the connection.
	// 0: 10 s, the time after which gRPC clients give up by themselves at the latest when they try again.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds how many handshakes are under way. 0: 512.
	MaxHandshakes int
	// MaxHandshakesPerAddress bounds those of one IP address, or of one /64 of IPv6, all of which a host can have,
	// so that a single host which opens connections and leaves them hanging cannot keep the members from each
	// other. 0: 256.
	MaxHandshakesPerAddress int
	// MaxClients bounds open connections under h2. 0: 16384.
	MaxClients int
	// MaxPerCaller bounds those of one SPIFFE ID, so that no caller can shut the others out. 0: a quarter of MaxClients.
	MaxPerCaller int
}

const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxHandshakes    = 512
	defaultMaxPerAddress    = 256
	defaultMaxClients       = 16384

	// Joiners have shown nothing of themselves: few connections, and not for long. A join takes a second.
	maxJoiners   = 64
	joinLifetime = time.Minute
	// One address has a quarter of them at most, so that nobody keeps other clusters, and members that join, from this one.
	maxJoinersPerAddress = maxJoiners / 4
)

// Port is a member's TLS port. See the package comment.
type Port struct {
	self         string
	listener     net.Listener
	identity     tls.Certificate
	members      Members
	certificates Certificates
	trust        x509bundle.Source
	logger       hclog.Logger
	ledger       *ledger
	now          func() time.Time

	handshakeTimeout time.Duration
	maxPerAddress    int
	maxClients       int
	maxPerCaller     int

	listeners   map[Protocol]*listener
	connections connections

	slots chan struct{}

	mu         sync.Mutex
	perAddress map[string]int              // handshakes under way
	clients    map[string]*grpc.ClientConn // by member id
	stopped    bool
	handshakes sync.WaitGroup
}

// New makes a port. It accepts nothing before [Port.Run].
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
	l, err := newLedger(cfg.Logger, cfg.Registerer)
	if err != nil {
		return nil, err
	}
	p := &Port{
		self:             cfg.Self,
		listener:         cfg.Listener,
		identity:         cfg.Identity,
		members:          cfg.Members,
		certificates:     cfg.Certificates,
		trust:            cfg.Trust,
		logger:           cfg.Logger,
		ledger:           l,
		now:              cfg.Now,
		handshakeTimeout: orDefault(cfg.HandshakeTimeout, defaultHandshakeTimeout),
		maxPerAddress:    orDefault(cfg.MaxHandshakesPerAddress, defaultMaxPerAddress),
		maxClients:       orDefault(cfg.MaxClients, defaultMaxClients),
		slots:            make(chan struct{}, orDefault(cfg.MaxHandshakes, defaultMaxHandshakes)),
		listeners:        make(map[Protocol]*listener),
		connections:      connections{open: make(map[*Conn]struct{}), counts: make(map[Protocol]int), callers: make(map[spiffeid.ID]int), joiners: make(map[string]int)},
		perAddress:       make(map[string]int),
		clients:          make(map[string]*grpc.ClientConn),
	}
	p.maxPerCaller = orDefault(cfg.MaxPerCaller, max(1, p.maxClients/4))
	if p.now == nil {
		p.now = time.Now
	}
	for _, protocol := range protocols {
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

// Listener returns where the verified connections of a protocol arrive. Each accepted connection is a
// [*Conn]. Closing it ends that protocol alone.
func (p *Port) Listener(protocol Protocol) net.Listener { return p.listeners[protocol] }

// Address returns the address that the port listens on.
func (p *Port) Address() net.Addr { return p.listener.Addr() }

// Run accepts connections until ctx ends, closes everything that is open, in and out, and waits for the
// handshakes that are under way. It returns an error only if the listener fails by itself.
func (p *Port) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.listener.Close() }) // Accept reports it
	defer stop()
	defer p.shutDown()
	var pause time.Duration
	for {
		raw, err := p.listener.Accept()
		if ctx.Err() != nil {
			if raw != nil {
				_ = raw.Close() // stopping
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept on %s: %w", p.listener.Addr(), err)
			}
			// Out of file descriptors, most likely: it passes when connections close.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			p.logger.Error("cannot accept a connection, trying again", "address", p.listener.Addr(), "error", err, "in", pause)
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

// begin starts the handshake of a connection if there is room for it.
func (p *Port) begin(ctx context.Context, raw net.Conn) {
	done, err := p.reserve(raw.RemoteAddr())
	if err != nil {
		p.ledger.refusedFrom(raw.RemoteAddr(), "", err)
		_ = raw.Close() // refused
		return
	}
	p.handshakes.Go(func() {
		defer done()
		p.accept(ctx, raw)
	})
}

func (p *Port) reserve(remote net.Addr) (done func(), err error) {
	host := hostOf(remote)
	select {
	case p.slots <- struct{}{}:
	default:
		return nil, refuse(ReasonBusy, fmt.Sprintf("%d handshakes are under way, as many as this port allows", cap(p.slots)))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.perAddress[host] >= p.maxPerAddress {
		<-p.slots
		return nil, refuse(ReasonBusy, fmt.Sprintf("%d handshakes with %s are under way, as many as one address may have", p.maxPerAddress, host))
	}
	p.perAddress[host]++
	return func() {
		<-p.slots
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.perAddress[host]--; p.perAddress[host] == 0 {
			delete(p.perAddress, host)
		}
	}, nil
}

// hostOf names the host behind an address, as far as it can be told: by its IP address, or by the /64 that the address
// is of, since one host of IPv6 has as many addresses there as it likes.
func hostOf(remote net.Addr) string {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return remote.String()
	}
	ip := tcp.AddrPort().Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return remote.String()
	}
	return prefix.String()
}

// shutDown leaves nothing of the port running.
func (p *Port) shutDown() {
	_ = p.listener.Close() // closed already, or of no use any more
	p.mu.Lock()
	p.stopped = true
	clients := p.clients
	p.clients = nil
	p.mu.Unlock()
	for _, c := range clients {
		_ = c.Close() // stopping
	}
	for _, l := range p.listeners {
		_ = l.Close() // never fails
	}
	p.closeAll()
	p.handshakes.Wait()
}
