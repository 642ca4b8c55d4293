package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRepair rebuilds a member whose log is cut off, and then one that runs. Each keeps its id and its keys, and gets
// its vote back.
func TestRepair(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	damaged := c.members[2]
	require.NoError(t, register(ctx, damaged, c.domain, "web", 1))
	damaged.kill()
	data := filepath.Join(damaged.dir, "data")
	identity, err := os.ReadFile(filepath.Join(data, "identity.pem"))
	require.NoError(t, err)
	require.NoError(t, os.Truncate(filepath.Join(data, "raft", "log.db"), 10_000))

	refusal := refusedStart(t, damaged)
	require.Contains(t, refusal, "log.db is damaged: it is cut off: it has 10000 bytes")
	require.Contains(t, refusal, "run 'entente cluster repair eu-3' against another member, then start this one "+
		"again: it is rebuilt from the others and keeps its id and keys")
	require.NotContains(t, refusal, "goroutine")

	require.Equal(t, "Member eu-3 has no vote now. Start it: it is rebuilt from the others.\n",
		c.members[0].command("cluster", "repair", "eu-3"))
	require.Contains(t, c.members[0].command("cluster", "members"), "non-voter, in repair")
	c.start(damaged)
	require.Len(t, instances(t, damaged, "web"), 1)
	kept, err := os.ReadFile(filepath.Join(data, "identity.pem"))
	require.NoError(t, err)
	require.Equal(t, identity, kept)
	require.NotContains(t, c.members[0].command("cluster", "members"), "repair")
	require.NoError(t, register(ctx, damaged, c.domain, "more", 1), "its writes are not taken for earlier ones")

	// A member that runs stops by itself.
	running := c.members[1]
	c.members[0].command("cluster", "repair", running.id)
	<-running.ended()
	require.Contains(t, running.logs(), "the state of this member is damaged: its repair was ordered at ")
	c.start(running)
	require.Len(t, instances(t, running, "more"), 1)
	require.Equal(t, 2, strings.Count(c.members[0].command("cluster", "members"), "voter")-
		strings.Count(c.members[0].command("cluster", "members"), "non-voter"))
}
