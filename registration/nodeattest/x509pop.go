package nodeattest

import (
	"crypto/sha1" //nolint:gosec // a fingerprint as SPIRE has it, for selectors of trusted authorities
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/registration/entry"
	"github.com/ententehq/entente/registration/possession"
)

// ByX509PoP is the kind of evidence that [X509PoP] verifies.
const ByX509PoP = "x509pop"

const (
	// maxChain and maxCertificate bound the work for a caller that is not known yet.
	maxChain, maxCertificate = 5, 16 << 10
)

// X509PoP admits agents by the certificates of their nodes. The authority decides who is which node: give it no other
// purpose.
type X509PoP struct {
	// Roots are the authorities.
	Roots *x509.CertPool
}

// Verify returns the node of a certificate, whose key has signed the session and the identity of the agent's key.
func (x *X509PoP) Verify(
	m *ententev1.X509PoPEvidence, binding []byte, identity [32]byte, now time.Time,
) (Node, error) {
	chain, err := parseChain(m.GetCertificates())
	if err != nil {
		return Node{}, refuse("x509pop: %v", err)
	}
	leaf, intermediates := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if leaf.IsCA {
		return Node{}, refuse("x509pop: the certificate is one of an authority: give the node one of its own")
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return Node{}, refuse("x509pop: the certificate lacks the key usage digitalSignature")
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: x.Roots, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return Node{}, refuse("x509pop: the certificate of the node does not verify by ca_file of this member: %v", err)
	}
	if err := possession.Verify(possession.OfNode, leaf, binding, identity[:], m.GetSignature()); err != nil {
		return Node{}, refuse("x509pop: %v", err)
	}
	name, err := nodeName(leaf)
	if err != nil {
		return Node{}, err
	}
	n := Node{
		Name: name, Attestation: ByX509PoP,
		Selectors: []string{"x509pop:serialnumber:" + hex.EncodeToString(leaf.SerialNumber.Bytes())},
	}
	if cn := leaf.Subject.CommonName; cn != "" {
		n.Selectors = append(n.Selectors, "x509pop:subject:cn:"+cn)
	}
	seen := map[string]bool{}
	for _, chain := range chains {
		for _, c := range chain[1:] {
			sum := sha1.Sum(c.Raw) //nolint:gosec // see above
			if s := "x509pop:ca:fingerprint:" + hex.EncodeToString(sum[:]); !seen[s] {
				seen[s] = true
				n.Selectors = append(n.Selectors, s)
			}
		}
	}
	if n.Selectors, err = entry.ParseSelectors("the certificate", n.Selectors); err != nil {
		return Node{}, refuse("x509pop: %v", err)
	}
	return n, nil
}

// nodeName returns the name of the agent of a certificate: that of its first DNS name, or else of its common name.
func nodeName(leaf *x509.Certificate) (string, error) {
	node := leaf.Subject.CommonName
	if len(leaf.DNSNames) > 0 {
		node = leaf.DNSNames[0]
	}
	name := ByX509PoP + "." + strings.ToLower(node)
	if err := entry.CheckName("its agent", name); err != nil || node == "" {
		return "", refuse("x509pop: the certificate names no node that an agent can be called by: its first DNS name, "+
			"or else its common name, is %.80q, and has 1 to %d letters, digits, '-', '_' and '.'", node,
			62-len(ByX509PoP))
	}
	return name, nil
}

func parseChain(raw [][]byte) (chain []*x509.Certificate, err error) {
	if n := len(raw); n == 0 || n > maxChain {
		return nil, fmt.Errorf("%d certificates were sent: send the node's, and up to %d of intermediate authorities",
			n, maxChain-1)
	}
	for _, der := range raw {
		if len(der) > maxCertificate {
			return nil, fmt.Errorf("a certificate has %d bytes: %d is the limit", len(der), maxCertificate)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("a certificate cannot be read: %w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// ParseRoots returns the authorities of a PEM file.
func ParseRoots(pem []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("it has no certificate in PEM")
	}
	return pool, nil
}
