package secretdir

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	for name, test := range map[string]struct {
		mode        fs.FileMode
		owner, user int
		want        string
	}{
		"private":   {0o700, 7, 7, ""},
		"read only": {0o500, 7, 7, ""},
		"of a group": {0o710, 7, 7, "the data folder /d has mode 0710, so that others can reach the private keys in " +
			"it; run chmod 0700 /d"},
		"of all": {0o701, 0, 0, "the data folder /d has mode 0701, so that others can reach the private keys in it; " +
			"run chmod 0700 /d"},
		"of another user": {0o700, 8, 7, "the data folder /d belongs to uid 8, and this process runs as uid 7, so " +
			"that another user can replace what is in it; run chown -R 7 /d"},
		"root in another's folder": {0o700, 8, 0, "the data folder /d belongs to uid 8, and this process runs as " +
			"uid 0, so that another user can replace what is in it; run chown -R 0 /d"},
	} {
		t.Run(name, func(t *testing.T) {
			err := judge("data folder", "/d", test.mode, test.owner, test.user)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.want)
		})
	}
}

func TestMake(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	require.NoError(t, Make("data folder", dir))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())

	require.NoError(t, os.Chmod(dir, 0o750))
	require.EqualError(t, Make("data folder", dir), "the data folder "+dir+" has mode 0750, so that others can reach "+
		"the private keys in it; run chmod 0700 "+dir)
	require.ErrorContains(t, Check("socket folder", filepath.Join(dir, "c")), "look at the socket folder: ")
}
