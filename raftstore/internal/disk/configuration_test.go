package disk

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func TestConfigurationIndex(t *testing.T) {
	c, appended := &configurationIndex{}, 0
	log := recordingLog{raft.NewInmemStore(), c, func() { appended++ }}
	store := func(index uint64, kind raft.LogType) {
		t.Helper()
		require.NoError(t, log.StoreLog(&raft.Log{Index: index, Term: 1, Type: kind}))
	}
	require.Equal(t, uint64(0), c.latest())
	store(1, raft.LogConfiguration)
	store(2, raft.LogCommand)
	store(3, raft.LogConfiguration)
	store(4, raft.LogCommand)
	store(5, raft.LogConfiguration)
	require.Equal(t, uint64(5), c.latest())

	require.NoError(t, log.DeleteRange(4, 5))
	require.Equal(t, uint64(3), c.latest(), "another leader has truncated the log")
	store(4, raft.LogCommand)
	require.NoError(t, log.DeleteRange(1, 3))
	require.Equal(t, uint64(3), c.latest(), "the log was compacted, and the configuration still holds")

	require.Equal(t, 6, appended, "each append was announced")

	again := &configurationIndex{}
	restarted := recordingLog{log.LogStore, again, func() {}}
	var entry raft.Log
	require.NoError(t, restarted.GetLog(4, &entry))
	require.Equal(t, uint64(0), again.latest())
	again.record(3) // from the snapshot that the log was compacted for
	require.Equal(t, uint64(3), again.latest())
}
