package registration

import (
	"context"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// Redeem redeems a token with a key, of which the caller has found no agent.
func Redeem(
	ctx context.Context, s ententev1.AttestationServiceServer, evidence *ententev1.AgentTokenEvidence,
	identity [32]byte,
) (name string, err error) {
	return s.(*attestationService).redeem(ctx, evidence, identity)
}

// Rewrite changes the row of an entry.
func Rewrite(tx *raftstore.Tx, id string, change func(*statev1.RegistrationEntry)) error {
	row, _, err := entries.Get(tx, id)
	if err != nil {
		return err
	}
	change(row.Value)
	return entries.Put(tx, id, row.Value)
}

// WrittenBy returns how many entries of a caller the index has.
func (r *Room) WrittenBy(author string) int { return len(r.index.by(author)) }
