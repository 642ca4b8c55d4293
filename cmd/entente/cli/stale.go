package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// leaderWait is how long a read waits for a leader before it takes the state of the member.
const leaderWait = 4 * time.Second

// Stale adds --stale to a command that reads, and returns its value.
func Stale(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("stale", false, "show the state of this member, without asking the leader")
}

// Read makes a read. If stale is set, or no leader can be reached, it is that of the member, which is marked on
// standard error.
func Read[R any](
	ctx context.Context, env *Env, stale bool, read func(context.Context, *ententev1.ReadOptions) (R, error),
) (R, error) {
	if !stale {
		const reads = 2 // this one, and the one of the member's own state
		within, cancel := context.WithTimeout(ctx, min(leaderWait, env.Timeout/reads))
		defer cancel()
		out, err := read(within, nil)
		if err == nil || !errors.Is(err, client.ErrNoLeader) && within.Err() == nil || ctx.Err() != nil {
			return out, err
		}
	}
	out, err := read(ctx, &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE})
	if err != nil {
		return out, err
	}
	mark := "No leader answered: this"
	if stale {
		mark = "This"
	}
	if r, ok := any(out).(interface{ GetRevision() uint64 }); ok {
		fmt.Fprintf(env.Stderr, "%s is the state of the member at revision %d; it can be old.\n", mark, r.GetRevision())
	}
	return out, nil
}
