package node

import (
	"context"

	"github.com/ententehq/entente/authority/plan"
)

// acknowledgements tells the room of authorities what that of federation knows of peers. The latter is built after the former, and
// nobody asks before both run.
type acknowledgements struct{ m *member }

// Acknowledged implements [authority.Acknowledgements].
func (a acknowledgements) Acknowledged(ctx context.Context, td string) ([]plan.PeerStanding, bool, error) {
	known, complete, err := a.m.federation.Acknowledged(ctx, td)
	if err != nil {
		return nil, false, err
	}
	peers := make([]plan.PeerStanding, len(known))
	for i, p := range known {
		peers[i] = plan.PeerStanding(p)
	}
	return peers, complete, nil
}
