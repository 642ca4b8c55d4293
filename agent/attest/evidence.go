package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/registration/agenttoken"
	"github.com/ententehq/entente/registration/possession"
)

// memberPath is the prefix of a member's ID in the path of its X509-SVID.
const memberPath = "/entente/member/"

// X509PoP are the files of the certificate of the node, PEM, with intermediate authorities after it.
type X509PoP struct {
	CertFile, KeyFile string
}

// Kubernetes is the projected token of the agent's service account.
type Kubernetes struct {
	// Cluster is the name of the Kubernetes cluster in the configuration of the members.
	Cluster, TokenFile string
}

// Trust is a bundle of the home trust domain, by which members are verified instead of by the digests of their keys.
type Trust struct {
	TrustDomain spiffeid.TrustDomain
	// File is a SPIFFE bundle, or certificates in PEM. It is read at each attestation.
	File string
}

func (t *Trust) load() (x509bundle.Source, error) {
	content, err := os.ReadFile(t.File)
	if err != nil {
		return nil, fmt.Errorf("read trust_bundle: %w", err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		b, _, err := bundle.Parse(t.TrustDomain, content)
		if err != nil {
			return nil, fmt.Errorf("read trust_bundle %s: %w", t.File, err)
		}
		return b, nil
	}
	b, err := x509bundle.Parse(t.TrustDomain, content)
	if err != nil || b.Empty() {
		return nil, errors.Join(err,
			fmt.Errorf("trust_bundle %s is neither a SPIFFE bundle nor certificates in PEM", t.File))
	}
	return b, nil
}

// verify returns nil if a member has proved an X509-SVID of a member, by the bundle and for the session.
func (t *Trust) verify(m *ententev1.ProveMemberResponse, binding []byte) error {
	source, err := t.load()
	if err != nil {
		return err
	}
	chain := make([]*x509.Certificate, len(m.GetCertificates()))
	for i, der := range m.GetCertificates() {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("read the SVID of the member: %w", err)
		}
	}
	id, _, err := x509svid.Verify(chain, source)
	if err != nil {
		return fmt.Errorf("the server does not verify by trust_bundle: %w", err)
	}
	if !strings.HasPrefix(id.Path(), memberPath) || id.TrustDomain() != t.TrustDomain {
		return fmt.Errorf("the server is %s, which is no member of %s", id, t.TrustDomain.Name())
	}
	if err := possession.Verify(possession.OfMember, chain[0], binding, nil, m.GetSignature()); err != nil {
		return fmt.Errorf("the server does not prove that it is %s: %w", id, err)
	}
	return nil
}

// prove sets the proof of the agent's key and the evidence in a request: a token that was not used, or else what shows
// the node.
func (n *Node) prove(m *ententev1.AttestAgentRequest, binding []byte) (err error) {
	if m.Proof, err = agenttoken.Prove(n.key, binding); err != nil {
		return err
	}
	n.mu.RLock()
	token := n.token
	n.mu.RUnlock()
	switch {
	case token != nil:
		m.Token = &ententev1.AgentTokenEvidence{Id: token.ID, Secret: token.Secret[:]}
	case n.cfg.X509PoP != nil:
		m.X509Pop, err = n.cfg.X509PoP.evidence(&n.key.PublicKey, binding)
	case n.cfg.Kubernetes != nil:
		content, readErr := os.ReadFile(n.cfg.Kubernetes.TokenFile)
		if readErr != nil {
			return fmt.Errorf("read the token of the service account: %w", readErr)
		}
		m.Kubernetes = &ententev1.KubernetesEvidence{
			Cluster: n.cfg.Kubernetes.Cluster, Token: strings.TrimSpace(string(content)),
		}
	}
	return err
}

func (x *X509PoP) evidence(agent *ecdsa.PublicKey, binding []byte) (*ententev1.X509PoPEvidence, error) {
	pair, err := tls.LoadX509KeyPair(x.CertFile, x.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the node: %w", err)
	}
	identity, err := agenttoken.Identity(agent)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key of the node's certificate cannot sign")
	}
	signature, err := possession.Prove(possession.OfNode, key, binding, identity[:])
	return &ententev1.X509PoPEvidence{Certificates: pair.Certificate, Signature: signature}, err
}
