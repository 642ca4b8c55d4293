package invitation

import (
	"encoding/pem"
	"fmt"
	"time"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/relationship"
)

// The bounds of the web roots in an offer, which has to fit a message beside two bundles. A private CA has a root, and
// the next one during its rotation.
const (
	maxOfferedRootsBytes = 32 << 10
	maxOfferedRoots      = 16
)

// ParseWebRoots parses the web roots of an offer, before they are sent and before they are stored: PEM certificates and
// nothing else, within bounds, none of them expired. It returns them in one form, without what stood around them.
func ParseWebRoots(data []byte, now time.Time) ([]byte, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if n := len(data); n > maxOfferedRootsBytes {
		return nil, fmt.Errorf("its web roots have %d bytes; %d are the most", n, maxOfferedRootsBytes)
	}
	roots, err := endpoint.ParseRoots(data)
	if err != nil {
		return nil, fmt.Errorf("its web roots: %s", relationship.Clip(err.Error()))
	}
	if n := len(roots); n > maxOfferedRoots {
		return nil, fmt.Errorf("it has %d web roots; %d are the most", n, maxOfferedRoots)
	}
	var out []byte
	for i, root := range roots {
		if now.After(root.NotAfter) {
			return nil, fmt.Errorf("its web root %d expired at %s", i+1, root.NotAfter.UTC().Format(time.RFC3339))
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})...)
	}
	return out, nil
}

// webRoots returns the web roots that this cluster offers, and what another cluster may not be able to verify.
func (c *Config) webRoots() (roots []byte, doubts []string, err error) {
	if c.Transport.WebRoots == nil {
		return nil, nil, nil
	}
	read, doubt, err := c.Transport.WebRoots()
	if err == nil {
		roots, err = ParseWebRoots(read, c.Now())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the offer of this cluster: %w", err)
	}
	if doubt != "" {
		doubts = append(doubts, doubt)
	}
	return roots, doubts, nil
}
