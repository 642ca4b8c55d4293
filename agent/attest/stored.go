package attest

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/registration/agenttoken"
)

// stored is what outlives the process beside the key and the state, which are files of their own.
type stored struct {
	Chain  []byte    `json:"chain"`
	Bundle []byte    `json:"bundle"`
	At     time.Time `json:"at"`
}

// Identity returns the digest of the agent's key.
func (n *Node) Identity() []byte {
	identity, err := agenttoken.Identity(&n.key.PublicKey)
	if err != nil {
		return nil // never: the key is P-256
	}
	return identity[:]
}

// Store returns the SVID and the bundle for [Node.Restore]. It has no private key.
func (n *Node) Store() ([]byte, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.svid == nil {
		return nil, errors.New("the agent is not attested yet")
	}
	s := stored{Bundle: n.bundle.Marshal(), At: n.at}
	var chain [][]byte
	for _, c := range n.svid.Certificates {
		chain = append(chain, c.Raw)
	}
	s.Chain = bytes.Join(chain, nil)
	return json.Marshal(s)
}

// Restore takes over what [Node.Store] returned, for the same key and the same agent. The SVID may have expired: then
// [Node.KeepFresh] attests the agent by its key.
func (n *Node) Restore(content []byte) error {
	var s stored
	if err := json.Unmarshal(content, &s); err != nil {
		return fmt.Errorf("read the stored SVID: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(n.key)
	if err != nil {
		return err
	}
	svid, err := x509svid.ParseRaw(s.Chain, pkcs8)
	if err != nil {
		return fmt.Errorf("read the stored SVID: %w", err)
	}
	home, _, err := bundle.Parse(svid.ID.TrustDomain(), s.Bundle)
	if err != nil {
		return fmt.Errorf("read the stored bundle: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state.SPIFFEID != svid.ID.String() || n.token != nil {
		return fmt.Errorf("the stored SVID is of %s: the agent is another one, or has a new token", svid.ID)
	}
	n.svid, n.bundle, n.at = svid, home, s.At
	return nil
}
