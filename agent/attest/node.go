package attest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/registration/agenttoken"
)

// Config configures a [Node].
type Config struct {
	// Dir is the data folder.
	Dir string
	// Token is the text of a token, for the first attestation. It is ignored by an agent that was attested before.
	Token string
	// Addresses, if not empty, are where the members are dialled instead of the addresses that the cluster names, in
	// the same order.
	Addresses []string
	// X509PoP and Kubernetes show the node instead of a token, unless one is given. At most one of them is set.
	X509PoP    *X509PoP
	Kubernetes *Kubernetes
	// Trust, if not nil, verifies the members at Addresses, instead of the digests of their keys.
	Trust   *Trust
	Version string
	Logger  hclog.Logger
}

// Node is the agent's identity. It is a source of its X509-SVID and of the bundle of the home trust domain. It is safe
// for concurrent use.
type Node struct {
	cfg Config
	key *ecdsa.PrivateKey

	mu     sync.RWMutex
	token  *agenttoken.Token // nil if none was given, or it was used
	state  state
	svid   *x509svid.SVID
	bundle *bundle.Bundle
	at     time.Time // when the SVID was requested
	// authority signed the SVID, and distrusted are those whose SVIDs are renewed at once.
	authority  string
	distrusted map[string]bool

	wake chan struct{} // of KeepFresh
}

// ErrRefused is wrapped by the error of [Node.Attest] if the cluster has decided, so that trying again is of no use.
var ErrRefused = errors.New("the cluster refused this agent")

// Open reads the data folder, and makes the key at the first start.
func Open(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, wake: make(chan struct{}, 1)}
	var err error
	if n.key, err = loadKey(cfg.Dir); err != nil {
		return nil, err
	}
	if n.state, err = loadState(cfg.Dir); err != nil {
		return nil, err
	}
	if cfg.Token != "" {
		t, err := agenttoken.Parse(cfg.Token)
		if err != nil && n.state.SPIFFEID == "" {
			return nil, err
		}
		// The members of a token that is old can have been removed meanwhile.
		fresh := n.state.SPIFFEID == "" || time.Now().Before(t.Expires)
		if err == nil && fresh && t.ID != n.state.Token {
			n.token = &t
		}
	}
	switch shown := cfg.X509PoP != nil || cfg.Kubernetes != nil; {
	case n.state.SPIFFEID == "" && n.token == nil && !shown:
		return nil, errors.New("the agent was never attested, and has no token: make one with 'entente agent token " +
			"NAME' on a member, and give it with --token-file or ENTENTE_AGENT_TOKEN")
	case n.state.SPIFFEID == "" && n.token == nil && cfg.Trust == nil:
		return nil, errors.New("the agent was never attested, and knows no member to show its node to: give " +
			"trust_domain, trust_bundle and addresses, or a token")
	}
	return n, nil
}

// servers returns the members to attest to: without identities, those that a bundle verifies, if there is one. Else
// those of a token that was not used yet, and from then on those that the
// cluster named last. No others: a member that was removed since the one list was made is in the other one no more.
func (n *Node) servers() []agenttoken.Server {
	if n.cfg.Trust != nil {
		var servers []agenttoken.Server
		for _, address := range n.Addresses() {
			servers = append(servers, agenttoken.Server{Address: address})
		}
		return servers
	}
	n.mu.RLock()
	servers := slices.Clone(n.state.Servers)
	if n.token != nil {
		servers = slices.Clone(n.token.Servers)
	}
	n.mu.RUnlock()
	if len(n.cfg.Addresses) == 0 {
		return servers
	}
	var at []agenttoken.Server // any of them can be at any address
	for _, address := range n.cfg.Addresses {
		for _, s := range servers {
			at = append(at, agenttoken.Server{Address: address, Identity: s.Identity})
		}
	}
	return at
}

// Addresses returns where the members serve the API.
func (n *Node) Addresses() []string {
	if len(n.cfg.Addresses) > 0 {
		return n.cfg.Addresses
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	var addresses []string
	for _, s := range n.state.Servers {
		addresses = append(addresses, s.Address)
	}
	return addresses
}

// Attest attests the agent at one member after the other, repeatedly, until one issues its SVID, one refuses it for
// good, or ctx ends.
func (n *Node) Attest(ctx context.Context) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 200*time.Millisecond, 30*time.Second
	for {
		var last error
		for _, server := range n.servers() {
			err := n.attestAt(ctx, server)
			if err == nil {
				return nil
			}
			last = fmt.Errorf("attest at %s: %w", server.Address, err)
			switch status.Code(err) {
			case codes.PermissionDenied, codes.InvalidArgument, codes.AlreadyExists, codes.FailedPrecondition:
				return fmt.Errorf("%w: %w", ErrRefused, last)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			n.cfg.Logger.Warn("could not attest at this member yet", "address", server.Address, "error", err)
		}
		timer := time.NewTimer(wait.NextBackOff())
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), last)
		case <-timer.C:
		}
	}
}

func (n *Node) attestAt(ctx context.Context, server agenttoken.Server) error {
	csr, err := n.request()
	if err != nil {
		return err
	}
	at := time.Now()
	var answer *ententev1.AttestAgentResponse
	err = call(ctx, server, n.cfg.Trust, func(
		ctx context.Context, service ententev1.AttestationServiceClient, binding []byte,
	) (err error) {
		m := &ententev1.AttestAgentRequest{Csr: csr, Version: n.cfg.Version}
		if err := n.prove(m, binding); err != nil {
			return err
		}
		answer, err = service.AttestAgent(ctx, m)
		return err
	})
	if err != nil {
		return err
	}
	return n.adopt(answer.GetSvid(), answer.GetServers(), at)
}

func (n *Node) request() ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, n.key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate signing request: %w", err)
	}
	return csr, nil
}

// adopt verifies and takes over what a member issued.
func (n *Node) adopt(issued *ententev1.IssueX509SVIDResponse, servers []*ententev1.AgentServer, at time.Time) error {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(n.key)
	if err != nil {
		return err
	}
	svid, err := x509svid.ParseRaw(bytes.Join(issued.GetCertificates(), nil), pkcs8)
	if err != nil {
		return fmt.Errorf("the member returned an SVID that is invalid or of another key: %w", err)
	}
	home, _, err := bundle.Parse(svid.ID.TrustDomain(), issued.GetBundle())
	if err != nil {
		return fmt.Errorf("read the bundle of %s: %w", svid.ID.TrustDomain().Name(), err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state.SPIFFEID != "" && n.state.SPIFFEID != svid.ID.String() {
		return fmt.Errorf("the member issued %s to this agent, which is %s", svid.ID, n.state.SPIFFEID)
	}
	if n.cfg.Trust != nil && svid.ID.TrustDomain() != n.cfg.Trust.TrustDomain {
		return fmt.Errorf("the member issued %s, in another trust domain than %s", svid.ID,
			n.cfg.Trust.TrustDomain.Name())
	}
	next := state{SPIFFEID: svid.ID.String(), Servers: named(servers), Token: n.state.Token}
	if len(next.Servers) == 0 {
		next.Servers = n.state.Servers
	}
	if n.token != nil {
		next.Token = n.token.ID
	}
	if err := next.save(n.cfg.Dir); err != nil {
		return err
	}
	n.state, n.svid, n.bundle, n.at, n.token = next, svid, home, at, nil
	n.authority = issued.GetAuthorityId()
	return nil
}

// named returns the members of a message, those without an identity key left out.
func named(servers []*ententev1.AgentServer) (of []agenttoken.Server) {
	for _, s := range servers {
		if len(s.GetIdentity()) == len(agenttoken.Server{}.Identity) {
			of = append(of, agenttoken.Server{Address: s.GetAddress(), Identity: [32]byte(s.GetIdentity())})
		}
	}
	return of
}

// SetServers takes over the members that the cluster names. The agent attests itself to no others from then on.
func (n *Node) SetServers(servers []*ententev1.AgentServer) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := n.state
	if next.Servers = named(servers); len(next.Servers) == 0 || slices.Equal(next.Servers, n.state.Servers) {
		return nil
	}
	if err := next.save(n.cfg.Dir); err != nil {
		return err
	}
	n.state = next
	return nil
}

// ID returns the SPIFFE ID of the agent. It is zero before the first attestation.
func (n *Node) ID() spiffeid.ID {
	n.mu.RLock()
	defer n.mu.RUnlock()
	id, _ := spiffeid.FromString(n.state.SPIFFEID)
	return id
}

// Expiry returns the end of the SVID.
func (n *Node) Expiry() time.Time {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.svid == nil {
		return time.Time{}
	}
	return n.svid.Certificates[0].NotAfter
}

// GetX509SVID returns the agent's SVID. It must not be modified.
func (n *Node) GetX509SVID() (*x509svid.SVID, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.svid == nil {
		return nil, errors.New("the agent is not attested yet")
	}
	return n.svid, nil
}

// GetX509BundleForTrustDomain returns the X.509 authorities of the home trust domain.
func (n *Node) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.bundle == nil {
		return nil, errors.New("the agent is not attested yet")
	}
	return n.bundle.GetX509BundleForTrustDomain(td)
}

// SetBundle takes over a newer bundle of the home trust domain.
func (n *Node) SetBundle(b *bundle.Bundle) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.bundle == nil || b.TrustDomain() != n.bundle.TrustDomain() {
		return
	}
	was, _ := n.bundle.Sequence()
	if now, _ := b.Sequence(); now > was {
		n.bundle = b
	}
}

// SetDistrusted replaces the authorities whose SVIDs are renewed at once.
func (n *Node) SetDistrusted(authorities map[string]bool) {
	n.mu.Lock()
	n.distrusted = authorities
	n.mu.Unlock()
	if n.isDistrusted() {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

func (n *Node) isDistrusted() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.distrusted[n.authority]
}

// KeepFresh renews the SVID at half of its life, and at once when its authority is no longer trusted. It returns when
// ctx ends.
func (n *Node) KeepFresh(ctx context.Context, service ententev1.NodeServiceClient) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 200*time.Millisecond, 30*time.Second
	due := n.due()
	for {
		timer := time.NewTimer(min(max(time.Until(due), 0), time.Minute)) // timers do not follow a clock that is set
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-n.wake:
			due = time.Now()
		case <-timer.C:
		}
		timer.Stop()
		if time.Now().Before(due) {
			continue
		}
		err := n.renew(ctx, service)
		if err == nil && n.isDistrusted() {
			err = errors.New("the members still sign with an authority that is no longer trusted")
		}
		if err == nil {
			wait.Reset()
			due = n.due()
			n.cfg.Logger.Debug("renewed the agent's SVID", "until", n.Expiry())
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.cfg.Logger.Warn("the agent's SVID could not be renewed, which is tried again", "valid_until", n.Expiry(),
			"error", err)
		due = time.Now().Add(wait.NextBackOff())
	}
}

func (n *Node) due() time.Time {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.at.Add(n.svid.Certificates[0].NotAfter.Sub(n.at) / 2)
}

// renew renews the SVID with the SVID. If that fails, as it does when no member verifies the SVID any more, the agent
// attests itself again by its key.
func (n *Node) renew(ctx context.Context, service ententev1.NodeServiceClient) error {
	last := errors.New("no member is known")
	if time.Now().Before(n.Expiry()) {
		if last = n.renewWithSVID(ctx, service); last == nil || status.Code(last) == codes.PermissionDenied {
			return last
		}
	}
	for _, server := range n.servers() {
		err := n.attestAt(ctx, server)
		if err == nil {
			return nil
		}
		last = err
	}
	return last
}

func (n *Node) renewWithSVID(ctx context.Context, service ententev1.NodeServiceClient) error {
	csr, err := n.request()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	at := time.Now()
	answer, err := service.RenewAgent(ctx, &ententev1.RenewAgentRequest{Csr: csr, Version: n.cfg.Version})
	if err != nil {
		return err
	}
	return n.adopt(answer.GetSvid(), answer.GetServers(), at)
}
