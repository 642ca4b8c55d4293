package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// All members are stopped and come back at other addresses, as on Kubernetes without stable names. The file of each one
// names one of them, where it is now.
func TestAllMembersMove(t *testing.T) {
	c := newCluster(t, "eu", 3, "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	require.NoError(t, register(ctx, c.members[0], c.domain, "web", 1))
	for _, p := range c.members {
		p.stop()
	}
	for _, p := range c.members {
		p.api = freePorts(t, 1)[0]
	}
	for i, p := range c.members {
		p.configure(c, "spent", c.members[(i+1)%3].api)
		p.run()
	}
	for _, p := range c.members {
		p.waitReady()
	}
	for _, p := range c.members {
		eventually(t, "the members are listed at their new addresses", func() error {
			list := command(t, "cluster", "members", "--socket", p.dir+"/data/admin.sock")
			for _, other := range c.members {
				if !strings.Contains(list, other.api) {
					return fmt.Errorf("%s is not at %s:\n%s", other.id, other.api, list)
				}
			}
			return nil
		})
		require.NoError(t, register(ctx, p, c.domain, "at-"+p.id, 1))
	}
	require.Len(t, instances(t, c.members[2], "web"), 1)

	// The addresses are committed: the files are of no use any more.
	for _, p := range c.members {
		p.kill()
	}
	for _, p := range c.members {
		p.configure(c, "", "")
		p.run()
	}
	for _, p := range c.members {
		p.waitReady()
	}
}
