package invitation

import (
	"fmt"

	"github.com/ententehq/entente/federation/relationship"
)

// webRoots returns the web roots that this cluster offers, and what another cluster may not be able to verify.
func (c *Config) webRoots() (roots []byte, doubts []string, err error) {
	if c.Transport.WebRoots == nil {
		return nil, nil, nil
	}
	read, doubt, err := c.Transport.WebRoots()
	if err == nil {
		roots, err = relationship.ParseWebRoots(read, c.Now())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the offer of this cluster: %w", err)
	}
	if doubt != "" {
		doubts = append(doubts, doubt)
	}
	return roots, doubts, nil
}
