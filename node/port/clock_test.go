package port_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestClockBeforeTheRecordedContact: a member that was started without the others knows its last contact with a leader
// from before, by which it signs for a while. Once its clock lies before that contact, it has none, and its clock is
// not plausible; when it is corrected, it has it again.
func TestClockBeforeTheRecordedContact(t *testing.T) {
	all := three(t)
	a := all[2]
	a.eventually("has a contact that it records", func() error {
		if !a.manager.ClockSane() || a.manager.LastContact().IsZero() {
			return errors.New("not yet")
		}
		return nil
	})
	before := time.Now()
	a.eventually("has had another one since", func() error {
		if !a.manager.LastContact().After(before) {
			return errors.New("not yet")
		}
		return nil
	})
	for _, m := range all {
		m.stop()
	}
	for _, ahead := range []time.Duration{0, -24 * time.Hour, time.Minute, -10 * time.Minute} {
		a.ahead.Store(int64(ahead))
		a.start()
		require.NoError(t, a.store.Serving().AwaitLoaded(t.Context()))
		lies := ahead < 0
		require.Equal(t, lies, a.manager.LastContact().IsZero(), "%s", ahead)
		require.Equal(t, !lies, a.manager.ClockPlausible(), "%s", ahead)
		require.False(t, a.manager.ClockSane(), "nobody has confirmed it")
		a.stop()
	}
}
