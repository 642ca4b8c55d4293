package registry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// TestLongKeysAreDeleted: the deletions of one transaction fit into a command, however long the keys are, and an error
// of the guard ends the deletion.
func TestLongKeysAreDeleted(t *testing.T) {
	m := newMember(t)
	of := set{strings.Repeat("s", 128), originMark + strings.Repeat("d", 255)}
	const rows = 3000
	for begin := 0; begin < rows; begin += 500 {
		_, err := m.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			for n := range 500 {
				key := of.in("old") + fmt.Sprintf("[fd00:aaaa:bbbb:cccc:dddd:eeee:ffff:%x]:65535", begin+n)
				if err := Instances.Put(tx, key, &statev1.Instance{}); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(t, err)
	}
	asked := 0
	gone, err := m.Collector.deleteRows(t.Context(), of.in("old"), func(*raftstore.Tx) error {
		if asked++; asked > 2 {
			return errCounts
		}
		return nil
	})
	require.ErrorIs(t, err, errCounts)
	require.Positive(t, gone)
	require.Less(t, gone, rows)
	rest, err := m.Collector.deleteRows(t.Context(), of.in("old"), nil)
	require.NoError(t, err)
	require.Equal(t, rows, gone+rest)
	left, err := Instances.List(m.store.View(), "")
	require.NoError(t, err)
	require.Empty(t, left)
}
