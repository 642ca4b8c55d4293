package e2e

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestAuditOfAllMembers: each member shows the audit logs of all, and says which one it could not reach.
func TestAuditOfAllMembers(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	asked := c.members[1]
	seen := func() (from map[string]bool, unreachable string) {
		stream, err := asked.socket().Audit().TailAudit(t.Context(), &ententev1.TailAuditRequest{
			Lines: 1000, AllMembers: true,
		})
		require.NoError(t, err)
		from = map[string]bool{}
		for {
			e, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return from, unreachable
			}
			require.NoError(t, err)
			if e.GetResult() == "unreachable" {
				unreachable = e.GetObject()
				continue
			}
			from[e.GetMember()] = true
		}
	}
	eventually(t, "every member has recorded something", func() error {
		if from, missing := seen(); len(from) != 3 || missing != "" {
			return fmt.Errorf("from %v, without %q", from, missing)
		}
		return nil
	})
	c.members[2].kill()
	from, missing := seen()
	require.Equal(t, map[string]bool{"eu-1": true, "eu-2": true}, from)
	require.Equal(t, "eu-3", missing)
}
