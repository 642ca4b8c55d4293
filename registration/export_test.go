package registration

import (
	"context"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Redeem redeems a token with a key, of which the caller has found no agent.
func Redeem(
	ctx context.Context, s ententev1.AttestationServiceServer, evidence *ententev1.AgentTokenEvidence,
	identity [32]byte,
) (name string, err error) {
	return s.(*attestationService).redeem(ctx, evidence, identity)
}
