// Package webcert supplies the Web PKI certificate of a bundle endpoint with the profile https_web.
//
// [CertificateFiles] reads the certificate and key from files and follows their replacement. [ACME] obtains and renews
// certificates from an ACME server. Each member of a cluster orders its own; the members take turns, and any of them
// answers a challenge ([Orders]). Private keys never leave the member. Both sources keep presenting the last good
// certificate when a replacement fails.
package webcert

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/hashicorp/go-hclog"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/refusal"
)

const (
	// MaxACMEHosts bounds the host names that one endpoint gets certificates for.
	MaxACMEHosts = 100
	// renewCheck is the interval at which certificates are checked. They are renewed when a third of their life is
	// left, or when the ACME server suggests it.
	renewCheck = 10 * time.Minute
)

// ACMEConfig is the configuration of an [ACME].
type ACMEConfig struct {
	// Directory is the URL of the ACME server's directory.
	Directory string
	// Email is the contact of the account, or empty.
	Email string
	// Roots are the only roots that the ACME server is verified with. If nil, the system's are used.
	Roots *x509.CertPool
	// ExternalAccount binds the account to an existing one, if not nil.
	ExternalAccount *ExternalAccount
	// Hosts are the host names that always need a certificate, at least one. The first is presented to clients without
	// SNI. [ACME.SetHosts] adds others.
	Hosts []string
	// Dir is the folder of account, keys and certificates, used by this member alone.
	Dir string
	// Endpoint is the address of the endpoint. The ACME server connects to port 443 of each host name, which has to
	// lead there.
	Endpoint net.Addr
	Orders   Orders
	Logger   hclog.Logger
	// Registerer registers the metrics. If nil, there are none.
	Registerer prometheus.Registerer
	// RenewCheck is the interval at which certificates are checked. It is ten minutes if zero.
	RenewCheck time.Duration
}

// ExternalAccount is the credential that an ACME server's operators issue for a new account (RFC 8555, section 7.3.4).
type ExternalAccount struct {
	KeyID string
	// Key is the HMAC key, in base64url.
	Key string
}

// ACME orders certificates for the https_web profile from an ACME server and renews them. It proves host names by
// tls-alpn-01 at the endpoint itself. While a name has no certificate, handshakes for it fail. A certificate that
// cannot be renewed is presented until it expires.
//
// Each member of a cluster orders its own certificates, one member at a time for one name, and any member answers the
// server's challenge. Keys never leave the member.
type ACME struct {
	config   ACMEConfig
	magic    *certmagic.Config
	cache    *certmagic.Cache
	orders   *prometheus.CounterVec
	inFlight sync.WaitGroup // orders, including those that certmagic begins by itself
	changed  chan struct{}  // has a buffer of one

	mu     sync.Mutex
	also   []string
	states map[string]acmeState
}

// acmeState is the outcome of the last order for a host name.
type acmeState struct {
	failures int // since the last success
	reason   acmeReason
	err      error
}

// NewACME prepares the certificates. [ACME.Run] orders them.
func NewACME(c ACMEConfig) (*ACME, error) {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.RenewCheck == 0 {
		c.RenewCheck = renewCheck
	}
	if len(c.Hosts) == 0 || len(c.Hosts) > MaxACMEHosts || c.Orders == nil || c.Endpoint == nil || c.Dir == "" {
		return nil, fmt.Errorf(
			"ACME needs 1 to %d host names, a folder, the endpoint's address and a room for orders",
			MaxACMEHosts,
		)
	}
	hosts := make([]string, len(c.Hosts))
	for i, host := range c.Hosts {
		if hosts[i] = endpoint.CanonicalHost(host); !endpoint.IsHostName(hosts[i]) {
			return nil, fmt.Errorf(
				"%q is not a host name; ACME gives certificates for names such as %q",
				host,
				"bundle.example.org",
			)
		}
	}
	c.Hosts = hosts
	if err := CheckACMEDirectory(c.Directory); err != nil {
		return nil, err
	}
	a := &ACME{config: c, changed: make(chan struct{}, 1), states: map[string]acmeState{}}
	if err := a.buildMagic(); err != nil {
		return nil, err
	}
	a.orders = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_bundle_endpoint_acme_orders_total",
		Help: "Orders of a certificate for the https_web endpoint, by result: ok, or why there is none.",
	}, []string{"result"})
	a.orders.WithLabelValues("ok")
	for _, r := range acmeReasons {
		a.orders.WithLabelValues(string(r))
	}
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "entente_bundle_endpoint_certificate_expiry_timestamp_seconds",
		Help: "When the certificate of the https_web endpoint expires; of several names the first to expire, 0 while " +
			"one has none.",
	}, a.firstExpiry)
	if err := register(c.Registerer, a.orders, expiry); err != nil {
		a.cache.Stop()
		return nil, err
	}
	return a, nil
}

// CheckACMEDirectory returns an error if the URL is not that of an ACME server's directory.
func CheckACMEDirectory(directory string) error {
	u, err := url.Parse(directory)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf(
			"%s is not the URL of an ACME directory; write one such as %q",
			refusal.Clip(directory),
			certmagic.LetsEncryptProductionCA,
		)
	}
	return nil
}

// DefaultACMEDirectory is the directory of Let's Encrypt.
const DefaultACMEDirectory = certmagic.LetsEncryptProductionCA

func (a *ACME) buildMagic() error {
	c := a.config
	host, portText, err := net.SplitHostPort(c.Endpoint.String())
	if err != nil {
		return fmt.Errorf("address of the bundle endpoint: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("address of the bundle endpoint: %w", err)
	}
	logger := quietLogger(c.Logger)
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		RenewCheckInterval: c.RenewCheck,
		Logger:             logger,
	})
	a.magic = certmagic.New(a.cache, certmagic.Config{
		Storage: newACMEStorage(c.Dir, c.Orders, func(host string, err error) { a.record(host, reasonCluster, err) }),
		Issuers: []certmagic.Issuer{}, // set below: an issuer refers to its configuration
		Logger:  logger,
		OCSP:    certmagic.OCSPConfig{DisableStapling: true}, // a renewed certificate replaces a staple
	})
	template := certmagic.ACMEIssuer{
		CA: c.Directory, Email: c.Email, Agreed: true, TrustedRoots: c.Roots, Logger: logger,
		DisableHTTPChallenge: true,
		// The address of the endpoint. certmagic checks that something listens there, and does not answer itself.
		ListenHost: host, AltTLSALPNPort: port,
		CertObtainTimeout: orderTimeout,
	}
	if c.ExternalAccount != nil {
		template.ExternalAccount = &acme.EAB{KeyID: c.ExternalAccount.KeyID, MACKey: c.ExternalAccount.Key}
	}
	issuer := certmagic.NewACMEIssuer(a.magic, template)
	issuer.TestCA = "" // no other server is used
	a.magic.Issuers = []certmagic.Issuer{&acmeIssuer{ACMEIssuer: issuer, acme: a}}
	return nil
}

// SetHosts replaces the names that need a certificate beside the configured ones: the endpoint hosts of hosted domains.
// Invalid names, and names above [MaxACMEHosts], are left out and logged.
func (a *ACME) SetHosts(hosts []string) {
	var also, left []string
	for _, host := range hosts {
		host = endpoint.CanonicalHost(host)
		switch {
		case slices.Contains(a.config.Hosts, host) || slices.Contains(also, host):
		case !endpoint.IsHostName(host) || len(a.config.Hosts)+len(also) >= MaxACMEHosts:
			left = append(left, host)
		default:
			also = append(also, host)
		}
	}
	slices.Sort(also)
	a.mu.Lock()
	same := slices.Equal(a.also, also)
	a.also = also
	a.mu.Unlock()
	if same {
		return
	}
	if len(left) > 0 {
		a.config.Logger.Warn("no certificate is ordered for these endpoint hosts: too many, or no host names",
			"hosts", len(left), "first", refusal.Clip(left[0]), "most", MaxACMEHosts)
	}
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

func (a *ACME) hosts() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append(slices.Clone(a.config.Hosts), a.also...)
}

// Run keeps a goroutine for each name until it has its first certificate. certmagic renews certificates.
func (a *ACME) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	running := map[string]context.CancelFunc{}
	for ctx.Err() == nil {
		wanted := a.hosts()
		for host, stop := range running {
			if !slices.Contains(wanted, host) {
				stop()
				delete(running, host)
				a.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: host}})
			}
		}
		for _, host := range wanted {
			if running[host] == nil {
				hostCtx, stop := context.WithCancel(ctx)
				running[host] = stop
				wg.Go(func() { a.obtain(hostCtx, host) })
			}
		}
		select {
		case <-ctx.Done():
		case <-a.changed:
		}
	}
	for _, stop := range running {
		stop()
	}
	a.cache.Stop()
	wg.Wait()
	a.inFlight.Wait()
	return nil
}

// obtain orders the first certificate of a name, or loads it from disk.
func (a *ACME) obtain(ctx context.Context, host string) {
	for {
		before := a.state(host).failures
		err := a.magic.ManageSync(ctx, []string{host})
		if err == nil || ctx.Err() != nil {
			return
		}
		if a.state(host).failures == before {
			a.record(host, reasonDisk, err) // neither the cluster nor the server was called
		}
		state := a.state(host)
		timer := time.NewTimer(jittered(waitAfter(state.reason, state.failures)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (a *ACME) state(host string) acmeState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.states[host]
}

// Certificate returns the certificate for a host name that expires last.
func (a *ACME) Certificate(_ context.Context, serverName string) (*tls.Certificate, error) {
	host := endpoint.CanonicalHost(serverName)
	if host == "" {
		host = a.config.Hosts[0]
	}
	if !slices.Contains(a.hosts(), host) {
		return nil, endpoint.ErrOtherHost
	}
	if cert, ok := a.newest(host); ok {
		return &cert.Certificate, nil
	}
	if state := a.state(host); state.err != nil {
		return nil, fmt.Errorf("there is no certificate for %s yet (%s): %w", host, state.reason, state.err)
	}
	return nil, fmt.Errorf("there is no certificate for %s yet: it is being ordered", host)
}

// newest returns the certificate for a name that expires last.
func (a *ACME) newest(host string) (certmagic.Certificate, bool) {
	found := a.cache.AllMatchingCertificates(host)
	if len(found) == 0 {
		return certmagic.Certificate{}, false
	}
	return slices.MaxFunc(found, func(x, y certmagic.Certificate) int {
		return cmp.Compare(x.Leaf.NotAfter.Unix(), y.Leaf.NotAfter.Unix())
	}), true
}

func (a *ACME) firstExpiry() float64 {
	var first float64
	for i, host := range a.hosts() {
		cert, ok := a.newest(host)
		if !ok {
			return 0
		}
		if at := float64(cert.Leaf.NotAfter.Unix()); i == 0 || at < first {
			first = at
		}
	}
	return first
}

// errNoChallenge is the error of a challenge for a name that no member has ordered a certificate for.
var errNoChallenge = errors.New("no member of this cluster is ordering a certificate for that host name")

// Challenge answers the challenge of an ACME server for serverName (RFC 8737), whichever member has ordered.
func (a *ACME) Challenge(ctx context.Context, serverName string) (*tls.Certificate, error) {
	host := endpoint.CanonicalHost(serverName)
	if !slices.Contains(a.hosts(), host) {
		return nil, endpoint.ErrOtherHost
	}
	proof, err := a.config.Orders.Answer(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("what to answer an ACME server about %s: %w", host, err)
	}
	if proof == "" {
		return nil, errNoChallenge
	}
	return acmez.TLSALPN01ChallengeCert(acme.Challenge{
		Type: acme.ChallengeTypeTLSALPN01, KeyAuthorization: proof, Identifier: acme.Identifier{Type: "dns",
			Value: host},
	})
}
