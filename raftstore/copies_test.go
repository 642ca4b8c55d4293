package raftstore_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// A member whose data folder was replaced by an older copy stops before it votes, whether the copy was made in an
// earlier run or in the last one. The others go on, and a member that only was restarted is not refused.
func TestOlderCopiesAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		stopped bool // the copy is of a member that had stopped
		refusal string
	}{
		"of an earlier run": {true, `start \d+ of it is known, and this is another one of the same number`},
		"of the last run":   {false, `entry \d+ of its log is known, and its log ends at \d+`},
	} {
		t.Run(name, func(t *testing.T) {
			var dir string
			stopped := make(chan error, 1)
			c := raftstoretest.NewCluster(t, 3, func(i int, c *raftstore.Config) {
				if i == 2 {
					dir = c.Dir
					c.Fatal = func(err error) { stopped <- err }
				}
			})
			put(t, c.Store(2), "k", "1")
			copied := t.TempDir()
			if test.stopped {
				c.Kill(2)
				require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
				require.NoError(t, c.Restart(2).Serving().Await(t.Context()))
			} else {
				require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
			}
			for range 20 {
				put(t, c.Store(2), "k", "2")
			}
			c.AwaitCaughtUp()
			c.Kill(2)
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.CopyFS(dir, os.DirFS(copied)))
			s := c.Restart(2)
			err := <-stopped
			require.Regexp(t, `^member stopped: its data folder is damaged, or an older copy: member member-[12] `+
				`refuses it: `+test.refusal+`; run 'entente cluster repair member-3' against another member`,
				err.Error())
			require.False(t, s.IsLeader())
			put(t, c.Store(0), "k", "3")
		})
	}
}
