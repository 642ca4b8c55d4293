package authority

import (
	"context"
	"io/fs"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/plan"
)

// TestOrphanedKeys: a key that no authority was ever seen for is kept for a while, since its transaction may still come
// to light; then it is deleted.
func TestOrphanedKeys(t *testing.T) {
	f, c := newSingle(t, nil)
	f.halt(c)
	_, err := c.keys.Create(t.Context(), "orphan")
	require.NoError(t, err)
	c.preparer.sweeper.known, c.preparer.sweeper.orphans = nil, nil
	next, err := c.preparer.sweeper.sweep(context.Background(), true)
	require.NoError(t, err)
	require.Equal(t, orphanAge, next.Sub(f.now()))
	_, err = c.keys.Signer("orphan")
	require.NoError(t, err)
	f.mu.Lock()
	f.ahead = orphanAge
	f.mu.Unlock()
	_, err = c.preparer.sweeper.sweep(context.Background(), true)
	require.NoError(t, err)
	_, err = c.keys.Signer("orphan")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotEmpty(t, c.issuer.State().Domains[home].Signer(plan.X509))
}

func TestMetrics(t *testing.T) {
	_, c := newSingle(t, nil)
	problems, err := testutil.GatherAndLint(c.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	count, err := testutil.GatherAndCount(c.registry, "entente_authority_not_after_timestamp_seconds",
		"entente_authority_bundle_sequence", "entente_authority_alarm")
	require.NoError(t, err)
	require.Equal(t, 2+1+6, count)
	require.Zero(t, c.metricSum("entente_authority_alarm"))
}
