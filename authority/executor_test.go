package authority

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/internal/journal"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// TestWhatWasMadeByAnotherClock: an authority that was made while the clock was a day off is discarded once the clock
// is right. It would begin in a day, and delay everything, or have ended.
func TestWhatWasMadeByAnotherClock(t *testing.T) {
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		f, c := newSingle(t, nil)
		f.halt(c)
		for _, a := range f.list(home) {
			_, err := c.store.Update(context.Background(), txDelete(table.AuthorityKey(home.Name(), a.GetId())))
			require.NoError(t, err)
		}
		domain, ok, err := table.Domains.Get(c.store.View(), home.Name())
		require.NoError(t, err)
		require.True(t, ok)
		for _, by := range []time.Duration{off, 0} {
			s, _, err := c.executor.situation(c.store.View(), domain.Value, f.now().Add(by))
			require.NoError(t, err)
			actions, _ := plan.Next(s)
			made, err := c.preparer.prepare(context.Background(), s, domain.Value, actions)
			require.NoError(t, err)
			require.Len(t, made, 2)
			var carried []journal.Step
			_, err = c.store.Update(context.Background(), func(tx *raftstore.Tx) (err error) {
				carried, err = c.executor.carryOut(tx, home.Name(), made, nil)
				return err
			})
			require.NoError(t, err)
			require.Equal(t, by == 0, len(carried) == 2, "%v", carried)
		}
	}
}

// setAfterwards is a contact whose clock is set a day ahead right after it was found to be right.
type setAfterwards struct {
	contact
	armed *atomic.Bool
}

func (s setAfterwards) ClockSane() bool {
	sane := s.contact.ClockSane()
	if s.armed.Swap(false) {
		s.c.set(func() { s.c.insane, s.c.skew = true, 24*time.Hour })
	}
	return sane
}

// TestAClockThatIsSetMeanwhileEndsNothing: a clock can be set between its read and the check. Decisions are made by the
// time that was read.
func TestAClockThatIsSetMeanwhileEndsNothing(t *testing.T) {
	var armed atomic.Bool
	f, c := newSingle(t, func(config *Config) { config.Contact = setAfterwards{config.Contact.(contact), &armed} })
	was := f.list(home)
	c.stop() // so that the transactions below are the only ones
	for name, carry := range map[string]func(tx *raftstore.Tx) ([]journal.Step, error){
		"own": func(tx *raftstore.Tx) ([]journal.Step, error) {
			return c.executor.carryOut(tx, home.Name(), nil, nil)
		},
		"lost": func(tx *raftstore.Tx) ([]journal.Step, error) { return c.executor.carryOutLost(tx, home.Name()) },
	} {
		c.set(func() { c.insane, c.skew = false, 0 })
		_, err := c.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			armed.Store(true)
			carried, err := carry(tx)
			require.NoError(t, err)
			require.Empty(t, carried, name)
			return err
		})
		require.NoError(t, err)
	}
	require.Equal(t, ids(was), ids(f.list(home)))
}
