package authority

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
)

// TestMemoryKeysOverARestart: members with keys in memory restart one after the other. At every step each of them
// issues, what was issued before verifies, and the old authorities are retired.
func TestMemoryKeysOverARestart(t *testing.T) {
	f := newThree(t, func(c *Config) { c.Keys, c.KeyDir = keys.NewMemory(), "" })
	f.advance(plan.HintsBeforeUse*plan.DefaultRefreshHint + time.Second) // all three are active
	var alive []issued
	// Readers poll once a refresh hint, so that they know what was published one ago.
	reader := f.bundle(home)
	step := func() {
		for _, c := range f.nodes {
			alive = append(alive, f.issue(c, workload(1))...)
		}
		for _, svid := range alive {
			if svid.expire.After(f.now()) {
				require.NoError(t, svid.verify(reader, f.now()), "%s at +%v", svid.what, f.ahead)
				require.NoError(t, svid.verify(f.bundle(home), f.now()), "%s at +%v", svid.what, f.ahead)
			}
		}
		reader = f.bundle(home)
	}
	step()
	for _, c := range f.nodes {
		before := f.bundle(home)
		f.halt(c)
		f.start(c)
		f.settle()
		step()
		require.Greater(t, len(f.bundle(home).X509Authorities()), len(before.X509Authorities()),
			"the old anchor stays while what is below it lives")
		for range plan.HintsBeforeUse + 1 {
			f.advance(plan.DefaultRefreshHint)
			step()
		}
		for _, kind := range plan.Kinds {
			require.NotEmpty(t, c.issuer.State().Domains[home].Signer(kind), "the new %s authority is active", kind)
		}
	}
	_, err := os.Stat(filepath.Join(f.dir, f.nodes[0].id, "keys"))
	require.ErrorIs(t, err, fs.ErrNotExist, "no key was ever on the disk")
	// When all that the old ones signed has expired, they are gone.
	f.advance(plan.DefaultSigningGrace + plan.DefaultX509SVIDTTL + time.Minute)
	require.Len(t, f.list(home), 6)
	require.Len(t, f.bundle(home).X509Authorities(), 3)
}

// TestMemoryKeysAlone: the only member of a cluster signs again at once.
func TestMemoryKeysAlone(t *testing.T) {
	f, c := newSingle(t, func(c *Config) { c.Keys = keys.NewMemory() })
	before := f.issue(c, workload(1))
	f.halt(c)
	f.start(c)
	f.settle()
	after := f.issue(c, workload(1))
	for _, svid := range append(before, after...) {
		require.NoError(t, svid.verify(f.bundle(home), f.now()), svid.what)
	}
}
