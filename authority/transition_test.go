package authority

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore"
)

// TestWhatWasMadeByAnotherClock: an authority that was made while the clock was a day off is not taken once it is right again. It
// would begin in a day and keep everybody waiting, or have ended.
func TestWhatWasMadeByAnotherClock(t *testing.T) {
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		f, c := newOne(t, nil)
		f.halt(c)
		for _, a := range f.list(home) {
			_, err := c.store.Update(context.Background(), txDelete(authorityKey(home.Name(), a.GetId())))
			require.NoError(t, err)
		}
		domain, ok, err := Domains.Get(c.store.View(), home.Name())
		require.NoError(t, err)
		require.True(t, ok)
		for _, by := range []time.Duration{off, 0} {
			s, _, err := c.situation(c.store.View(), domain.Value, f.now().Add(by))
			require.NoError(t, err)
			actions, _ := Plan(s)
			made, err := c.prepare(context.Background(), s, domain.Value, actions)
			require.NoError(t, err)
			require.Len(t, made, 2)
			var carried []done
			_, err = c.store.Update(context.Background(), func(tx *raftstore.Tx) (err error) {
				carried, err = c.carryOut(tx, home.Name(), made, nil)
				return err
			})
			require.NoError(t, err)
			require.Equal(t, by == 0, len(carried) == 2, "%v", carried)
		}
	}
}
