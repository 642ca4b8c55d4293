package attest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
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
	Version   string
	Logger    hclog.Logger
}

// Node is the agent's identity. It is a source of its X509-SVID and of the bundle of the home trust domain. It is safe
// for concurrent use.
type Node struct {
	cfg   Config
	key   *ecdsa.PrivateKey
	token *agenttoken.Token // nil if none was given

	mu     sync.RWMutex
	state  state
	svid   *x509svid.SVID
	bundle *bundle.Bundle
	at     time.Time // when the SVID was requested
}

// ErrRefused is wrapped by the error of [Node.Attest] if the cluster has decided, so that trying again is of no use.
var ErrRefused = errors.New("the cluster refused this agent")

// Open reads the data folder, and makes the key at the first start.
func Open(cfg Config) (*Node, error) {
	n := &Node{cfg: cfg}
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
		if err == nil {
			n.token = &t
		}
	}
	if n.state.SPIFFEID == "" && n.token == nil {
		return nil, errors.New("the agent was never attested, and has no token: make one with 'entente agent token " +
			"NAME' on a member, and give it with --token-file or ENTENTE_AGENT_TOKEN")
	}
	return n, nil
}

// servers returns the members to attest to: those that the cluster named last, and those of the token.
func (n *Node) servers() []agenttoken.Server {
	n.mu.RLock()
	servers := append([]agenttoken.Server(nil), n.state.Servers...)
	n.mu.RUnlock()
	if n.token != nil {
		for _, s := range n.token.Servers {
			if !containsServer(servers, s) {
				servers = append(servers, s)
			}
		}
	}
	if len(n.cfg.Addresses) == 0 {
		return servers
	}
	var at []agenttoken.Server // any of them can be at any address
	for _, address := range n.cfg.Addresses {
		for _, s := range servers {
			if s := (agenttoken.Server{Address: address, Identity: s.Identity}); !containsServer(at, s) {
				at = append(at, s)
			}
		}
	}
	return at
}

func containsServer(servers []agenttoken.Server, s agenttoken.Server) bool {
	for _, known := range servers {
		if known == s {
			return true
		}
	}
	return false
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
	err = call(ctx, server, func(
		ctx context.Context, service ententev1.AttestationServiceClient, binding []byte,
	) (err error) {
		m := &ententev1.AttestAgentRequest{Csr: csr, Version: n.cfg.Version}
		if m.Proof, err = agenttoken.Prove(n.key, binding); err != nil {
			return err
		}
		if n.token != nil {
			m.Token = &ententev1.AgentTokenEvidence{Id: n.token.ID, Secret: n.token.Secret[:]}
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
	next := state{SPIFFEID: svid.ID.String()}
	for _, s := range servers {
		if len(s.GetIdentity()) == len(agenttoken.Server{}.Identity) {
			next.Servers = append(next.Servers, agenttoken.Server{
				Address: s.GetAddress(), Identity: [32]byte(s.GetIdentity()),
			})
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(next.Servers) == 0 {
		next.Servers = n.state.Servers
	}
	if n.state.SPIFFEID != "" && n.state.SPIFFEID != next.SPIFFEID {
		return fmt.Errorf("the member issued %s to this agent, which is %s", next.SPIFFEID, n.state.SPIFFEID)
	}
	if err := next.save(n.cfg.Dir); err != nil {
		return err
	}
	n.state, n.svid, n.bundle, n.at = next, svid, home, at
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

// KeepFresh renews the SVID at half of its life, and attests the agent again if that fails until it has expired, or if
// renew has a value. It returns when ctx ends.
func (n *Node) KeepFresh(ctx context.Context, service ententev1.NodeServiceClient, renew <-chan struct{}) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 200*time.Millisecond, 30*time.Second
	due := n.due()
	for {
		timer := time.NewTimer(min(max(time.Until(due), 0), time.Minute)) // timers do not follow a clock that is set
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-renew:
			due = time.Now()
		case <-timer.C:
		}
		timer.Stop()
		if time.Now().Before(due) {
			continue
		}
		err := n.renew(ctx, service)
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

// renew renews the SVID with the SVID, or by the key if it has expired.
func (n *Node) renew(ctx context.Context, service ententev1.NodeServiceClient) error {
	if time.Now().Before(n.Expiry()) {
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
	var last error
	for _, server := range n.servers() {
		if last = n.attestAt(ctx, server); last == nil {
			return nil
		}
	}
	return last
}
